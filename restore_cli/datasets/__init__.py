"""Datasets of pairs: how they are laid out, found, fetched, made and checked."""
