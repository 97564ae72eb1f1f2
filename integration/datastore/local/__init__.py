"""One SQLite file as datastore: the default where there is no cluster."""
