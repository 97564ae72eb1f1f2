"""One place for the version, readable without importlib.metadata (it costs memory and 20 ms of every start)."""

VERSION = "0.1.0"
