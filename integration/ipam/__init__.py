"""IPAM over the datastores: `ipam` with a store, a clock and an event loop."""
