"""Inference: loading checkpoints, padding, local statistics, tiling."""
