"""Language models: generation, streaming, benchmarks (document 004)."""
