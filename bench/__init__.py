"""Measurements of Maru beside other servers. `python -m bench.run` runs all; docs/benchmarks.md explains."""
