"""Compares inputs with their results, side by side in one picture or with a slider in HTML.

Both files are read again and shrunk while they are decoded; only the part under the loupe is read
at full resolution. An output of 16000x12000 needs the memory of its file and a few megabytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import gcd
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.image import Encoding, Picture, encode
from restore_cli.image.views import read_region, read_thumbnail
from restore_cli.image.writing import write_file
from restore_cli.jobs.outputs import check_not_in_run, check_output_file
from restore_cli.jobs.plan import Item
from restore_cli.jobs.preflight import window_of_largest_mean
from restore_cli.jobs.run import Outcome
from restore_cli.resample import resize_bicubic

STEPS = 4  # progress reports per picture
_MAX_SIDE = 1600  # pixels of a side in the page; larger pictures are shrunk
_MAX_PICTURES = 50  # pictures in a page
_PART = 768, 1024  # rows and columns that a page keeps at full resolution of shrunken pictures
_LOOK = 240, 320  # rows and columns that the loupe shows first, approximately
_GAP, _LABEL = 8, 30  # white pixels between the pictures, and above them for the labels
_MIN_LABEL_WIDTH = 120  # columns that a label needs
_MAX_STEP = 64

Box = tuple[int, int, int, int]  # top, left, height, width
OnStep = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Loupe:
    """The part of a picture that is kept at full resolution, in pixels of the output."""

    before: str  # JPEG as a data URI; "" if the page shows the whole picture at full size
    after: str  # the same
    left: int  # first column
    top: int  # first row
    width: int  # number of columns
    height: int  # number of rows
    x: int  # column of the whole picture around which the two differ most
    y: int  # row around which the two differ most


@dataclass(frozen=True, slots=True)
class Comparison:
    """One picture of a page."""

    name: str  # path of the input
    size: str  # size of the output, e.g. "640x480".
    before: str  # JPEG as a data URI, as large as `after`
    after: str  # JPEG as a data URI
    width: int  # of both JPEGs, at most 1600 pixels
    height: int  # likewise
    loupe: Loupe  # the part that can be seen at 100 %


def check_comparison_file(
    path: Path, items: Sequence[Item], on_exists: str, *, option: str = "--compare"
) -> None:
    """Refuse a file for the comparison before anything is restored.

    Raises `UsageError` if it is neither .png nor .html, a .png for several inputs, an input or an
    output, exists already, or cannot be written.
    """
    if path.suffix.lower() not in (".png", ".html"):
        raise UsageError(f"{option} '{path}' is neither .png nor .html", hint="name it .html")
    if path.suffix.lower() == ".png" and len(items) > 1:
        raise UsageError(
            f"{option} '{path}' is one picture, but there are {len(items)} inputs",
            hint="use an .html file",
        )
    check_not_in_run(path, ((i.source, i.target) for i in items), option)
    if path.exists() and on_exists != "overwrite":
        other = f"use another {option}, or delete it"  # overwriting would concern the pictures, too
        hint = f"use --on-exists overwrite, or another {option}" if on_exists == "error" else other
        raise UsageError(f"'{path}' exists", hint=hint)
    check_output_file(path, option)


def shown_in(path: Path, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Return the outcomes that `write_comparison` shows: one in a .png, at most 50 in a page."""
    return outcomes[: 1 if path.suffix.lower() == ".png" else _MAX_PICTURES]


def write_comparison(
    path: Path,
    outcomes: Sequence[Outcome],
    description: str,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> None:
    """Write a page of restored pictures (`.html`), or a picture of the first one (`.png`).

    The outcomes are of pictures that are files; see `shown_in`. `description` is one line. `report`
    is called `STEPS` times per picture. Raises `PictureError` if a picture cannot be read again, or
    the disk is full.
    """
    shown = shown_in(path, outcomes)
    if path.suffix.lower() == ".png":
        pixels = _sheet(shown[0], partial(report, shown[0]))
        write_file(path, encode(Picture(pixels), Encoding(), str(path))[0])
        return
    pairs = [compare(outcome, partial(report, outcome)) for outcome in shown]
    if len(outcomes) > len(shown):
        description += f" Only the first {len(shown)} of {len(outcomes)} pictures are shown."
    template = page_template("jobs/compare.html.j2")
    loupes = [asdict(pair.loupe) for pair in pairs]
    title = "Before and after"
    text = template.render(title=title, description=description, pairs=pairs, loupes=loupes)
    write_file(path, text.encode("utf-8", "replace"))  # file names need not be UTF-8


def compare(outcome: Outcome, report: OnStep = lambda: None) -> Comparison:
    """Read both files of an outcome, shrunk for a page, and the part for the loupe.

    `report` is called `STEPS` times. Raises `PictureError` if one of the pictures cannot be read
    again.
    """
    both = _Both.read(outcome, report)
    box, before, after = both.closer(_PART, report)
    top, left, height, width = box
    row, column = _most_changed(before, after, _LOOK)
    is_whole = both.after.shape[-2:] == both.full
    return Comparison(
        name=str(outcome.item.source),
        size=f"{both.full[1]}x{both.full[0]}",
        before=data_uri(both.before),
        after=data_uri(both.after),
        width=both.after.shape[-1],
        height=both.after.shape[-2],
        loupe=Loupe(
            before="" if is_whole else data_uri(before),
            after="" if is_whole else data_uri(after),
            left=left,
            top=top,
            width=width,
            height=height,
            x=left + column + min(_LOOK[1], width) // 2,
            y=top + row + min(_LOOK[0], height) // 2,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Both:
    """Input and output as a page shows them, (1, 3, h, w) on white, and their full sizes."""

    outcome: Outcome  # outcome of the picture
    before: Tensor  # the input, enlarged by bicubic interpolation if it is smaller
    after: Tensor  # the output
    source: tuple[int, int]  # height and width of the input
    full: tuple[int, int]  # height and width of the output

    @classmethod
    def read(cls, outcome: Outcome, report: OnStep) -> _Both:
        assert outcome.size is not None
        height, width = outcome.size
        shrink = min(1.0, _MAX_SIDE / max(height, width))
        shown = max(1, round(height * shrink)), max(1, round(width * shrink))
        before, source = read_thumbnail(outcome.item.source, *shown)
        report()
        after, full = read_thumbnail(outcome.item.target, *shown)
        report()
        return cls(
            outcome,
            resize_bicubic(before.on_white, *shown).clamp(0, 1),
            after.on_white,
            source,
            full,
        )

    def closer(self, size: tuple[int, int], report: OnStep) -> tuple[Box, Tensor, Tensor]:
        """Return the part of at most that size in which the two differ most, at full resolution.

        If the page shows them at full size, this is the whole picture.
        """
        shown = self.after.shape[-2:]
        if shown == self.full:
            report()
            report()
            return (0, 0, *self.full), self.before, self.after
        height, width = (min(a, b) for a, b in zip(size, self.full, strict=True))
        down, across = (a / b for a, b in zip(self.full, shown, strict=True))
        row, column = _most_changed(
            self.before, self.after, (round(height / down), round(width / across))
        )
        top = _aligned(round(row * down), height, self.full[0], self.source[0])
        left = _aligned(round(column * across), width, self.full[1], self.source[1])
        box = top, left, height, width
        before = self._enlarged(box)
        report()
        after = read_region(self.outcome.item.target, *box).on_white
        report()
        return box, before, after

    def _enlarged(self, box: Box) -> Tensor:
        """Return the part of the input that lies under a box of the output, enlarged."""
        cuts = [
            _around(start, length, full, own)
            for start, length, full, own in zip(
                box[:2], box[2:], self.full, self.source, strict=True
            )
        ]
        (first_row, rows, tall, top), (first_column, columns, wide, left) = cuts
        part = read_region(self.outcome.item.source, first_row, first_column, rows, columns)
        enlarged = resize_bicubic(part.on_white, tall, wide).clamp(0, 1)
        return enlarged[..., top : top + box[2], left : left + box[3]]


def _step(full: int, own: int) -> int:
    """Return the distance in output pixels at which pixel borders coincide; 1 if too large."""
    step = full // gcd(full, own)
    return step if step <= _MAX_STEP else 1


def _aligned(start: int, length: int, full: int, own: int) -> int:
    """Return the first row or column of a part, moved to where an input pixel begins."""
    start = max(0, min(start, full - length))
    return start - start % _step(full, own)


def _around(start: int, length: int, full: int, own: int) -> tuple[int, int, int, int]:
    """Find the input pixels that are needed to enlarge a part, including neighbours.

    Returns:
        First input pixel; number of input pixels; their number when enlarged; start of the part in
        the enlarged pixels.
    """
    step = _step(full, own)
    margin = -(-4 * full // own // step) * step  # the bicubic kernel reaches two pixels
    stop = min(full, -(-(start + length) // step) * step + margin)
    begin = max(0, start - margin)
    first, last = round(begin * own / full), max(1, round(stop * own / full))
    return first, max(1, last - first), stop - begin, start - begin


def _most_changed(before: Tensor, after: Tensor, window: tuple[int, int]) -> tuple[int, int]:
    """Return the first row and column of the window that differs most; the middle if none does.

    Squared differences: large local changes outweigh the small differences that resampling makes
    everywhere.
    """
    change = (after - before).square().mean(1)[0].numpy()
    row, column, mean = window_of_largest_mean(change, *(max(1, side) for side in window))
    if mean < (0.5 / 255) ** 2:
        row, column = ((a - min(a, b)) // 2 for a, b in zip(change.shape, window, strict=True))
    return row, column


def _sheet(outcome: Outcome, report: OnStep) -> Tensor:
    """Draw both with labels, (1, 3, H, W); if they were shrunk, also a part of both at 100 %."""
    both = _Both.read(outcome, report)
    height, width = both.after.shape[-2:]
    box, before, after = both.closer((min(height, width * 2 // 3), width), report)
    sizes = [f"{size[1]}x{size[0]}" for size in (both.source, both.full)]
    rows = [_row(both.before, f"before, {sizes[0]}", both.after, f"after, {sizes[1]}")]
    if box[2:] != both.full:
        rows.append(_row(before, "before at 100 %", after, "after at 100 %"))
    return torch.cat(rows, -2)


def _row(before: Tensor, label_before: str, after: Tensor, label_after: str) -> Tensor:
    """Draw two pictures of the same size side by side, with labels above them."""
    height, width = before.shape[-2:]
    column = max(width, _MIN_LABEL_WIDTH)
    row = before.new_ones(1, 3, _LABEL + height, 2 * column + _GAP)
    band = Image.new("L", (row.shape[-1], _LABEL), 255)
    pen, font = ImageDraw.Draw(band), ImageFont.load_default(18 if column >= 240 else 11)
    for left, picture, label in ((0, before, label_before), (column + _GAP, after, label_after)):
        row[..., _LABEL:, left : left + width] = picture
        pen.text((left + 4, 4), label, fill=0, font=font)
    row[..., :_LABEL, :] = torch.from_numpy(np.array(band) / 255)
    return row


def page_template(name: str) -> Template:
    """Load the template of a page, e.g. `jobs/compare.html.j2`."""
    loader = PackageLoader("restore_cli", ".")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return pages.get_template(name)


def data_uri(image: Tensor) -> str:
    """Return a picture (1, 3, H, W) in [0, 1] as a JPEG in a data URI."""
    data, _ = encode(Picture(image), Encoding("jpeg", quality=92, metadata="none"), "page")
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
