"""Training: recipe, data, losses, one loop. Every random number is a function of (seed, step)."""
