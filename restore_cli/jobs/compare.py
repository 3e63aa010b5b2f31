"""Before and after, side by side in a picture or under a slider in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.image import Encoding, Picture, encode, read_image, write_image
from restore_cli.image.writing import put
from restore_cli.jobs.outputs import refuse_own, refuse_unwritable
from restore_cli.jobs.plan import Item
from restore_cli.jobs.run import Outcome
from restore_cli.resample import resize_bicubic

_LONGEST = 1600  # pixels of a side in the page; larger ones are shown smaller
_MOST = 50  # pictures in a page
_GAP = 8  # white pixels between the two


@dataclass(frozen=True, slots=True)
class Pair:
    """What a page shows of one picture.

    Attributes:
        name: of the input.
        size: of the output, as "640x480".
        before: JPEG as a data URI, as large as `after`.
        after: the same.
        width: that both are shown at, at most 1600 pixels.
        height: the same.
    """

    name: str
    size: str
    before: str
    after: str
    width: int
    height: int


def refuse_compare(path: Path, items: Sequence[Item], on_exists: str) -> None:
    """Refuse a name for the comparison before anything is restored.

    Raises:
        UsageError: neither a page nor a picture of one pair; an input or an output; there already;
            not to be written.
    """
    if path.suffix.lower() not in (".png", ".html"):
        raise UsageError(f"--compare '{path}' is neither .png nor .html")
    if path.suffix.lower() == ".png" and len(items) > 1:
        raise UsageError(
            f"--compare '{path}' is one picture, but there are {len(items)} inputs",
            hint="use .html",
        )
    refuse_own(path, ((i.source, i.target) for i in items), "--compare")
    if path.exists() and on_exists != "overwrite":
        raise UsageError(f"'{path}' exists", hint="use --on-exists overwrite, or another --compare")
    refuse_unwritable(path.parent)


def write_comparison(path: Path, outcomes: Sequence[Outcome], made: str) -> None:
    """Write a page of restored pictures, or a picture of the first.

    Args:
        path: `.html` or `.png`.
        outcomes: of pictures that are files; at most 50 are shown.
        made: one line that says how.

    Raises:
        PictureError: a picture cannot be read again, or the disk is full.
    """
    if path.suffix.lower() == ".png":
        before, after = _both(outcomes[0])
        gap = before.new_ones(1, 3, before.shape[-2], _GAP)
        whole = torch.cat([before, gap, after], -1)
        write_image(path, Picture(whole, None, grey=False, format="png"), Encoding("png"))
        return
    pairs = [pair_of(outcome) for outcome in outcomes[:_MOST]]
    title = "Before and after"
    if len(outcomes) > _MOST:
        made += f" The first {_MOST} of {len(outcomes)} pictures."
    pages = Environment(loader=PackageLoader("restore_cli", "."), autoescape=True)
    text = pages.get_template("jobs/compare.html.j2").render(title=title, made=made, pairs=pairs)
    put(path, text.encode("utf-8", "replace"))  # names need not be UTF-8


def _both(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """The input, enlarged by bicubic, and the output; both on white."""
    before, after = (
        _on_white(read_image(path, max_pixels=2**62))
        for path in (outcome.item.source, outcome.item.target)
    )
    return resize_bicubic(before, *after.shape[-2:]).clamp(0, 1), after


def _on_white(picture: Picture) -> Tensor:
    if picture.alpha is None:
        return picture.pixels
    return picture.pixels * picture.alpha + 1 - picture.alpha


def pair_of(outcome: Outcome) -> Pair:
    """Both pictures of an outcome, small enough for a page.

    Raises:
        PictureError: one cannot be read again.
    """
    before, after = _both(outcome)
    height, width = after.shape[-2:]
    shrink = min(1.0, _LONGEST / max(height, width))
    shown = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    if shrink < 1:
        before, after = (resize_bicubic(image, *shown).clamp(0, 1) for image in (before, after))
    return Pair(
        name=str(outcome.item.source),
        size=f"{width}x{height}",
        before=_data_uri(before),
        after=_data_uri(after),
        width=shown[1],
        height=shown[0],
    )


def _data_uri(image: Tensor) -> str:
    picture = Picture(image, None, grey=False, format="jpeg")
    data, _ = encode(picture, Encoding("jpeg", quality=92, metadata="none"), "page")
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
