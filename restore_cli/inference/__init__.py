"""From a checkpoint to restored pixels: loading, padding, local statistics, tiles."""
