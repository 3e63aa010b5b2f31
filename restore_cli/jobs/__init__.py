"""Runs over many pictures: everything is checked first, then pictures are restored in turn."""
