"""etcd as datastore: a thin client of our own, and the driver with Calico's layout."""
