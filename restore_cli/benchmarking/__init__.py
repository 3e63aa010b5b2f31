"""Scores by the papers' protocols, and comparison with the papers' numbers."""
