"""A decoded picture and its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from restore_cli.image.formats import FORMATS, HDR
from restore_cli.image.raw_metadata import RawMetadata


@dataclass(slots=True)
class Metadata(RawMetadata):
    """The metadata of a picture. The orientation is applied on reading, and written as 1."""

    icc_profile: bytes | None = None  # colour profile of the pixels that will be written
    # horizontal and vertical resolution in pixels per inch; None if it is not stated
    dpi: tuple[float, float] | None = None
    # primaries, transfer, matrix and full range (ITU-T H.273) if the picture has high dynamic
    # range; else None
    hdr: tuple[int, int, int, int] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()  # chunks of PNG that describe colours, by type
    # height and width in the file, to which metadata refers; None if unknown
    size: tuple[int, int] | None = None
    # EXIF orientation that was applied, or the equal one that the decoder has applied; 0 if unknown
    orientation: int = 1
    # everything that the file contains besides pixels; see `inventory.take_inventory`
    inventory: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    # (1, 3, H, W) float32 in [0, 1], sRGB if the profile was converted; or integers, if that is
    # lossless (see `rounding.to_uint`), of `depth` bits or of the depth to write
    pixels: Tensor
    alpha: Tensor | None = None  # (1, 1, H, W) float32 in [0, 1], or None
    grey: bool = False  # whether the file has one colour channel
    format: str = "png"  # key of `formats.FORMATS`, or `bmp`, `gif`, `heic`, which are only read
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
