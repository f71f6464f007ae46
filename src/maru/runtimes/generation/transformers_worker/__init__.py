"""One folder of safetensors in transformers' continuous batching, which answers as llama.cpp's server does, as far as
`exchange` asks.

It imports nothing of Maru, and within itself relatively: the Python that runs it need not have Maru.
"""
