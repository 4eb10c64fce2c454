"""Measurements that stand in the documents; each is run by `python -m benchmarks.NAME`."""
