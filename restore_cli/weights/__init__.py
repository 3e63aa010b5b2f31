"""Where weights come from and that they are what they claim. Knows models by name only."""
