"""Furniture style in texts and images (document 000)."""
