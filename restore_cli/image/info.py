"""Facts about a picture from its header, without decoding it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import ImageCms
from PIL.ExifTags import Base

from restore_cli.errors import PictureError
from restore_cli.image.colour_signalling import HDR
from restore_cli.image.content import read_bytes
from restore_cli.image.exif import text_of
from restore_cli.image.formats import HEAD, KINDS, recognise
from restore_cli.image.provenance import read_provenance
from restore_cli.image.raw_metadata import Metadata
from restore_cli.image.reading import open_header


def describe(path: Path) -> dict[str, Any]:
    """Return facts about a picture, as `restore info` prints them; None for what it does not state.

    Raises `PictureError` if it is not a picture, or one that cannot be restored.
    """
    header = open_header(read_bytes(path), str(path), max_pixels=2**62)  # nothing is decoded
    metadata = header.metadata
    kinds = sorted({kind for kind, _ in metadata.inventory})
    held = {kind: sorted(n for k, n in metadata.inventory if k == kind and n) for kind in kinds}
    makers = [text_of(metadata.exif or b"", tag) for tag in (Base.Make, Base.Model)]
    return {
        "format": header.format,
        "size": f"{header.width}x{header.height}",
        "depth": header.source_bits,
        "colours": header.kind,
        "alpha": header.alpha,
        "profile": _profile_name(metadata),
        "dpi": round(metadata.dpi[0], 1) if metadata.dpi else None,
        "orientation": header.orientation,
        "dynamic_range": HDR[metadata.hdr[1]] if metadata.hdr else None,
        "camera": " ".join(filter(None, makers)) or None,
        "gps": any(kind == "EXIF" and name.startswith("GPS") for kind, name in metadata.inventory),
        "metadata": tuple(kinds),
        "inventory": tuple(f"{kind}: {', '.join(names)}" for kind, names in held.items() if names),
        **{f"restored: {name}": value for name, value in read_provenance(metadata).items()},
    }


def provenance_of(path: Path) -> dict[str, str]:
    """Return how `restore` made a file; empty if it did not, or if it is not a picture."""
    try:
        header = open_header(read_bytes(path), str(path), max_pixels=2**62)  # nothing is decoded
        return read_provenance(header.metadata)
    except PictureError:
        return {}


def is_whole(path: Path) -> bool:
    """Whether a picture has its end, as far as its format shows; see `Format.ends_early`."""
    data = read_bytes(path)
    key = recognise(data[:HEAD])
    return key is None or not KINDS[key].ends_early(data)


def _profile_name(metadata: Metadata) -> str | None:
    if metadata.icc_profile is None:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(metadata.icc_profile))
        return ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "broken"
