"""Scores under the papers' own protocols, beside the papers' own numbers."""
