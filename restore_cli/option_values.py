"""Values of options that take one of a few words."""

from __future__ import annotations

OPTION_VALUES: dict[str, tuple[str, ...]] = {
    "on_exists": ("error", "skip", "overwrite", "rename"),
    "format_": ("png", "jpeg", "webp", "tiff", "avif"),
    "alpha": ("resize", "restore", "drop"),
    "icc": ("convert", "keep", "strip"),
    "metadata": ("all", "standard", "private", "none"),
    "bit_depth": ("auto", "8", "16"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "fp32", "fp16", "bf16"),
    "tile": ("auto", "off"),
    "engine": ("local", "ray"),
    "size": ("keep", "2x"),
}
