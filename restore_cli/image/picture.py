"""A decoded picture and its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from restore_cli.image.colour_signalling import HDR
from restore_cli.image.formats import FORMATS
from restore_cli.image.raw_metadata import Metadata


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    # (1, 3, H, W) float32 in [0, 1], sRGB if the profile was converted; or integers, if that is
    # lossless (see `rounding.to_uint`), of `depth` bits or of the depth to write
    pixels: Tensor
    alpha: Tensor | None = None  # (1, 1, H, W) float32 in [0, 1], or None
    grey: bool = False  # whether the file has one colour channel
    format: str = "png"  # key of `formats.KINDS`
    depth: int = 8  # bits per channel, 8 or 16
    # "rgb" for unconverted values, "profile" if they were converted to sRGB and are converted back
    # on writing, "cmyk" for the same with CMYK
    colours: str = "rgb"
    # (1, 3, H, W), the part of the values outside of sRGB, which is added after restoring; or None
    out_of_gamut: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)  # metadata for the output
    notes: tuple[str, ...] = ()  # notes on what was left out
    # bits per channel in the file, e.g. 10 with a `depth` of 16; None for `depth`.
    source_bits: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @property
    def on_white(self) -> Tensor:
        """The picture on a white background, (1, 3, H, W) in [0, 1], if its pixels are floats."""
        return self.pixels if self.alpha is None else self.pixels * self.alpha + 1 - self.alpha

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is transparent; an opaque alpha channel is none."""
        return self.alpha is not None and float(self.alpha.min()) < 1

    @property
    def hdr(self) -> str:
        """The transfer function ("PQ" or "HLG") of a high dynamic range picture, else ""."""
        hdr = self.metadata.hdr
        return "" if hdr is None else HDR[hdr[1]]

    @property
    def default_format(self) -> str:
        """The default format for writing."""
        return self.format if self.format in FORMATS else "png"

    def with_pixels(self, pixels: Tensor, alpha: Tensor | None) -> Picture:
        """Return a copy with other pixels (1, 3, H, W), of any size and with all colours."""
        return replace(self, pixels=pixels, alpha=alpha, out_of_gamut=None)
