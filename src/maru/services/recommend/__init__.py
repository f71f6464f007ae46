"""Document 002: recommendations for a session."""
