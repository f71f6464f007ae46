"""Maru: one serving engine under every model."""

__version__ = "0.1.0"
