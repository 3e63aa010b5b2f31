"""Finds, fetches and verifies weights. Knows models by name only."""
