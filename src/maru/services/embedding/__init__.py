"""Text embeddings (document 003)."""
