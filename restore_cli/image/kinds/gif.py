"""gif, read only: without animation."""

from __future__ import annotations

from functools import partial

from restore_cli.image.colour_signalling import ColourSignalling
from restore_cli.image.containers import ZEROS, gif_comments, gif_end, gif_profile, gif_xmp
from restore_cli.image.format_spec import Format, begins_with
from restore_cli.image.raw_metadata import RawMetadata, density
from restore_cli.image.vips import load_with_vips


def _read_metadata(parts: RawMetadata, data: bytes, _: bytes) -> None:
    if data[12:13] > b"\0":  # 64 times the width of a pixel over its height, minus 15
        parts.aspect = density(64, data[12] + 15)
    parts.comment = b"\n".join(gif_comments(data)) or None
    parts.xmp = gif_xmp(data)


def _colours(
    data: bytes, exif: bytes | None, *, grey: bool, with_profile: bool
) -> ColourSignalling:
    return ColourSignalling(None if with_profile else gif_profile(data))


FORMAT = Format(
    name="GIF",
    recognise=begins_with(b"GIF87a", b"GIF89a"),
    read_suffixes=(".gif",),
    load=partial(load_with_vips, "gif"),
    ends_early=lambda data: data[: gif_end(data)].endswith(ZEROS),
    read_metadata=_read_metadata,
    colours=_colours,
    end=gif_end,
)
