"""Where resources are kept: one interface over a local file, etcd and Kubernetes."""
