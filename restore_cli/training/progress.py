"""Progress of a run: a log line per step, curves, and a sheet of restored validation pictures."""

from __future__ import annotations

import json
import math
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from restore_cli.files import write_then_rename
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import to_uint
from restore_cli.training.validation import ValidationScore, ValidationSet

POINTS = 4000  # points of a curve, about
ROWS, COLUMNS, TILE = 4, 6, 176  # of the sheet: pictures, validations, pixels a side


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run after one step."""

    step: int  # number of finished steps
    steps: int  # steps of all phases
    phase: str  # name of the current phase
    loss: float  # sum of the weighted terms
    terms: dict[str, float]  # the weighted terms by name
    learning_rate: float  # learning rate of this step
    seconds: float  # duration of this step
    waited: float  # the part of `seconds` spent waiting for data
    steps_per_second: float  # over the last hundred steps, including validation and saving
    patches_per_hour: float  # over the same steps
    pool: int | None = None  # number of items of the pool; None without a pool
    reuse: float | None = None  # patches seen per item made so far
    # score of the validation, without its pictures; None in steps without validation
    score: ValidationScore | None = None
    seconds_left: float | None = None  # time left of the limit; None without a limit
    baseline: str = "bicubic"  # bicubic, or the input itself if the scored output has its size


class Pace:
    """Speed over the last hundred steps, including validation and saving between them."""

    def __init__(self, seen: int) -> None:
        self._marks = deque([(time.monotonic(), seen)], maxlen=101)

    def after_step(self, seen: int) -> tuple[float, float]:
        """Return steps per second and patches per hour, given the patches seen so far."""
        self._marks.append((time.monotonic(), seen))
        (begun, first), (now, last) = self._marks[0], self._marks[-1]
        seconds = max(now - begun, 1e-9)
        return (len(self._marks) - 1) / seconds, (last - first) * 3600 / seconds


class MetricsLog:
    """`metrics.jsonl`: one line per step; on resuming, lines after the saved step are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        kept = path.read_text("utf-8", "replace").splitlines() if path.exists() and first else []
        with write_then_rename(path) as temporary:
            whole = [line for line in kept if _step(line) <= first]
            temporary.write_text("".join(line + "\n" for line in whole), "utf-8")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole]

    def add(self, progress: Progress) -> None:
        """Append a line; raises `OSError` if the disk is full."""
        line: dict[str, Any] = {"step": progress.step, "phase": progress.phase}
        line["loss"] = round(progress.loss, 6)
        line |= {name: round(term, 6) for name, term in progress.terms.items()}
        line["learning_rate"] = progress.learning_rate
        line |= {"seconds": round(progress.seconds, 4), "waited": round(progress.waited, 4)}
        line["steps_per_second"] = round(progress.steps_per_second, 4)
        line["patches_per_hour"] = round(progress.patches_per_hour)
        if progress.reuse is not None:
            line |= {"pool": progress.pool, "reuse": round(progress.reuse, 3)}
        if progress.score:
            line |= progress.score.facts()
        self.rows.append(line)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


class TensorBoard:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  an extra

        # Steps after the saved one were lost and are computed again.
        self._writer = SummaryWriter(str(folder), purge_step=first + 1)

    def add(self, progress: Progress) -> None:
        """Write the scalars of one step."""
        scalars = {"loss": progress.loss, "learning_rate": progress.learning_rate}
        scalars |= {f"terms/{name}": value for name, value in progress.terms.items()}
        if score := progress.score:
            scalars |= {"validation/psnr": score.psnr, "validation/gain": score.gain}
            scalars |= {f"validation/gain/{name}": gain for name, gain in score.gains.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, progress.step)

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()


def plot_curves(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Plot loss (each step, and smoothed), validation and learning rate of the rows, as PNG."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    thin = max(len(rows) // POINTS, 1)
    rows = [row for n, row in enumerate(rows) if n % thin == 0 or "gain" in row]
    steps = np.array([row["step"] for row in rows])
    for phase in dict.fromkeys(row["phase"] for row in rows):
        part = np.array([row["phase"] == phase for row in rows])
        values = np.array([row["loss"] for row in rows])[part]
        above.plot(steps[part], values, linewidth=0.5, alpha=0.3, color="tab:blue")
        above.plot(steps[part], _smooth(values), label=_plain(phase))
        if steps[part][0] > steps[0]:
            for axis in (above, middle, below):
                axis.axvline(steps[part][0], color="0.7", linewidth=0.8, linestyle="--")
        scored = [row for row in rows if "gain" in row and row["phase"] == phase]
        gains = [row["gain"] for row in scored]
        middle.plot([row["step"] for row in scored], gains, marker="o", markersize=3)
    folders = dict.fromkeys(name for row in rows for name in row.get("gains", ()))
    for name, color in zip(folders, TABLEAU_COLORS, strict=False):
        scored = [row for row in rows if name in row.get("gains", ())]
        gains = [row["gains"][name] for row in scored]
        middle.plot([row["step"] for row in scored], gains, ":", color=color, label=_plain(name))
    if folders:
        middle.legend(fontsize="small", title="of each folder")
    above.set_ylabel("loss")
    above.legend(fontsize="small")
    middle.axhline(0, color="0.5", linewidth=0.8)
    middle.set_ylabel("gain over the input\n(bicubic, if enlarged), dB")
    below.plot(steps, [row["learning_rate"] for row in rows], color="tab:green")
    below.set_ylabel("rate")
    below.set_xlabel("step")
    for axis in (above, middle, below):
        axis.grid(visible=True, alpha=0.3)
    with write_then_rename(target) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _plain(name: str) -> str:
    """Escape a label, so that matplotlib shows it as it is: no formula, no hiding underscore."""
    text = name.replace("\\", r"\\").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


class ValidationSheet:
    """`validation.png`: a row per picture; input, results of some validations, reference."""

    def __init__(self, folder: Path, validation_set: ValidationSet, target: Path) -> None:
        """Store tiles of validations in `folder`, so that a resumed run can show them."""
        self._folder, self._target = folder, target
        pairs = validation_set.pairs[:ROWS]
        large = [resize_bicubic(x, *reference.shape[-2:]) for x, reference in pairs]
        self._before = _column(large)
        self._after = _column([reference for _, reference in pairs])
        self._sizes = [reference.shape[-2:] for _, reference in pairs]

    def add(self, step: int, gain: float, restored: Sequence[Tensor]) -> None:
        """Add a validation with a gain in dB and pictures (1, 3, H, W), and redraw the sheet.

        Tiles of this step and later ones, from before a resume, are deleted.
        """
        shown = [
            resize_bicubic(image, *size)
            for image, size in zip(restored[:ROWS], self._sizes, strict=True)
        ]
        for file in self._files():
            if int(file.name.partition("_")[0]) >= step:
                file.unlink()
        with write_then_rename(self._folder / f"{step:08d}_{gain:+.2f}.png") as temporary:
            _column(shown).save(temporary, "PNG")
        files = self._files()
        if len(files) > 2 * COLUMNS:
            for file in files[1:-1:2]:
                file.unlink()
            files = self._files()
        chosen = sorted({round(n) for n in np.linspace(0, len(files) - 1, COLUMNS)})
        columns = [("input", self._before)]
        for file in (files[n] for n in chosen):
            number, dbs = file.stem.split("_")
            with Image.open(file) as tiles:
                columns.append((f"step {int(number)}: {dbs} dB", tiles.copy()))
        columns.append(("reference", self._after))
        with write_then_rename(self._target) as temporary:
            _beside(columns).save(temporary, "PNG")

    def _files(self) -> list[Path]:
        """List the tiles, in the order of their steps, but not other files in the folder."""
        found = self._folder.glob("*.png")
        return sorted(file for file in found if re.fullmatch(r"\d{8,}_.*", file.name))


def _column(images: Sequence[Tensor]) -> Image.Image:
    """Put the centre crops of pictures one below the other."""
    tiles = []
    for image in images:
        height, width = image.shape[-2:]
        top, left = max(height - TILE, 0) // 2, max(width - TILE, 0) // 2
        tile = to_uint(image[0, :, top : top + TILE, left : left + TILE], 8)
        array = tile.permute(1, 2, 0).cpu().numpy()
        missing = [(0, TILE - side) for side in array.shape[:2]]
        tiles.append(np.pad(array, [*missing, (0, 0)], constant_values=255))
    return Image.fromarray(np.concatenate(tiles))


def _beside(columns: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    gap, head = 4, 18
    height = max(image.height for _, image in columns) + head
    sheet = Image.new("RGB", (len(columns) * (TILE + gap) - gap, height), "white")
    draw = ImageDraw.Draw(sheet)
    for n, (title, image) in enumerate(columns):
        left = n * (TILE + gap)
        draw.text((left + 2, 3), title, fill="black")
        sheet.paste(image, (left, head))
    return sheet


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the exponential moving average over about 50 steps, with bias correction."""
    mean, weight, out = 0.0, 0.0, []
    for value in values:
        mean, weight = 0.98 * mean + 0.02 * value, 0.98 * weight + 0.02
        out.append(mean / weight)
    return np.array(out)


def _step(line: str) -> float:
    """Return a line's step; infinite if a crash cut the line off, or it lacks what is drawn."""
    try:
        row = json.loads(line)
        str(row["phase"]), float(row["loss"]), float(row["learning_rate"])
        return int(row["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
