"""Benchmarks against other BGP daemons in the same run: `python -m tests.bench`.

Parts: `table` makes a full table with its UPDATE bytes beforehand; `bench_peer` is one raw BGP session that only copies
bytes; `load` drives many of them from one thread; `tally` judges what arrived, prefix by prefix; `daemons` starts the
speakers to compare; `scenarios` are the loads; `report` prints. `inprocess` times our own engine without sockets.
"""
