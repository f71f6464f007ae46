"""Forecasts by the model that a registry names (document 001)."""
