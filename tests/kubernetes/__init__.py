"""A whole Kubernetes on catbird alone: run.sh makes the machine that these tests need and runs them there."""
