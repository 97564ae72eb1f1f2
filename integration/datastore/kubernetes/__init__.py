"""The Kubernetes API as a datastore."""
