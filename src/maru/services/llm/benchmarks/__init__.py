"""Benchmarks of language models: how fast, how steadily, and at what cost, measured as the field measures it.

A `Plan` says what is asked and how fast, `Load` asks it of a `Source`, `figures` makes numbers of the records, and
`Benchmark` does all of that for a whole plan. The `Executor` does it for runs that are asked for over HTTP.
"""
