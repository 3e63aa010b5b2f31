"""A decoded picture and what its file said besides pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from restore_cli.image.formats import FORMATS, HDR


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says besides its pixels. Orientation is applied on reading and not kept.

    Attributes:
        exif: block from the order of bytes on, as it stood in the file.
        xmp: packet, likewise.
        iptc: plain records, likewise.
        photoshop: numbers and contents of Photoshop's other resources.
        icc_profile: colour profile that belongs to the pixels as they will be written.
        dpi: pixels an inch, horizontal and vertical; None where the file does not say.
        aspect: dots across and down of a file that says no unit and pixels that are not square.
        hdr: primaries, transfer, matrix and full range (ITU-T H.273) of values that are of high
            dynamic range; None for all others.
        colour: chunks of PNG that describe colours, by type.
        text: keys and values of PNG.
        comment: of JPEG and GIF.
        geo: tags of GeoTIFF: number, and type and values.
        size: height and width in the file, which `geo` is about; None without one.
        inventory: of everything that the file carried; see `inventory.take`.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    photoshop: tuple[tuple[int, bytes], ...] = ()
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None
    hdr: tuple[int, int, int, int] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()
    text: tuple[tuple[str, str], ...] = ()
    comment: bytes | None = None
    geo: tuple[tuple[int, tuple[int, bytes]], ...] = ()
    size: tuple[int, int] | None = None
    inventory: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (1, 3, H, W) float32 in [0, 1], sRGB where the profile was converted; or, where that
            loses nothing, whole numbers (see `rounding.rounded`): of `depth` as they were read,
            or of the depth to write.
        alpha: (1, 1, H, W) float32 in [0, 1], or None.
        grey: whether the file has one colour channel.
        format: key of `formats.FORMATS`, or `bmp`, `gif`, `heic`, which are only read.
        depth: bits a channel, 8 or 16.
        colours: "rgb" for values as they are, "profile" where they were converted to sRGB and go
            back to the profile on writing, "cmyk" the same with inks.
        excess: (1, 3, H, W), what lies outside of sRGB, to be added after restoring; or None.
        metadata: kept for writing.
        notes: what had to be left out, for people.
        bits: a channel that the file had, e.g. 10 of the 16 that `depth` says; None for `depth`.
    """

    pixels: Tensor
    alpha: Tensor | None
    grey: bool
    format: str
    depth: int = 8
    colours: str = "rgb"
    excess: Tensor | None = None
    metadata: Metadata = Metadata()
    notes: tuple[str, ...] = ()
    bits: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @property
    def hdr(self) -> str:
        """The transfer of its high dynamic range, or ""."""
        hdr = self.metadata.hdr
        return "" if hdr is None else HDR[hdr[1]]

    @property
    def own_format(self) -> str:
        """The format to write it in where none is asked for."""
        return self.format if self.format in FORMATS else "png"

    def with_pixels(self, pixels: Tensor, alpha: Tensor | None) -> Picture:
        """The same picture with other pixels (1, 3, H, W), of any size, that hold all colours."""
        return replace(self, pixels=pixels, alpha=alpha, excess=None)
