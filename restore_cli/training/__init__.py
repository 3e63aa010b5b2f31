"""Training: recipe, data, losses, one loop. All that is drawn is a function of (seed, step)."""
