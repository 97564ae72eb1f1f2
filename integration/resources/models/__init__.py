"""The models, one module a subject."""
