"""Draw docs/training-curves.svg: gain against patches seen, from the tables of the training log.

python tools/training_curves.py docs/training-log.md docs/training-curves.svg
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

UNIT = 64**2  # patches are counted in patches of 64x64
# First cells of their rows.
NETWORKS = ("attentive-deblur", "msan", "mprnet-mscam", "gfn", "moadg")
SHAPES = ("msan at full size", "msan, width 48", "msan, three blocks")
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of the log.

    Attributes:
        name: network; runs of one name follow each other.
        section: begin of the section's heading.
        columns: columns of gains.
        pixels: input pixels per step.
        part: first cell of its rows, if the table has several networks.
    """

    name: str
    section: str
    columns: tuple[str, ...]
    pixels: int
    part: str = ""


CROPS = ("12 crops",)
SETS = ("real", "`shake`", "shrunk")
X1 = ("real", "`handheld`")
RUNS = (
    Run("mprnet-mscam (x4)", "2026-11-21: mprnet-mscam-lite", CROPS, 8 * 64**2),
    Run("gfn (x4)", "2026-11-21: gfn-lite", CROPS, 8 * 64**2),
    Run("moadg (x4)", "2026-11-22: moadg-lite", CROPS, 8 * 64**2),
    Run("attentive-deblur (x1), first try", "2026-11-21: attentive-deblur", CROPS, 8 * 128**2),
    Run("attentive-deblur (x1)", "2026-11-22: attentive-deblur", CROPS, 8 * 128**2, NETWORKS[0]),
    Run("msan (x1)", "2026-11-22: attentive-deblur", CROPS, 8 * 128**2, NETWORKS[1]),
    Run("msan (x1)", "2026-11-22: msan-lite.handheld, continued", CROPS, 8 * 128**2),
    Run("mprnet-mscam (x4)", "2026-11-26: real pairs", CROPS, 8 * 64**2, NETWORKS[2]),
    Run("attentive-deblur (x1)", "2026-11-26: real pairs", CROPS, 8 * 128**2, NETWORKS[0]),
    Run("msan (x1)", "2026-11-26: real pairs", CROPS, 8 * 128**2, NETWORKS[1]),
    Run("gfn (x4)", "2026-11-27: two stages", CROPS, 8 * 64**2, NETWORKS[3]),
    Run("moadg (x4)", "2026-11-27: two stages", CROPS, 8 * 64**2, NETWORKS[4]),
    Run("attentive-deblur (x1)", "2026-11-27: fifteen minutes", CROPS, 8 * 128**2, NETWORKS[0]),
    Run("attentive-deblur (x1)", "2026-11-27: msan and", CROPS, 8 * 128**2, NETWORKS[0]),
    Run("msan (x1)", "2026-11-27: msan and", CROPS, 8 * 128**2, NETWORKS[1]),
    Run("attentive-deblur (x1)", "2026-11-27: sharp patches", CROPS, 8 * 128**2, NETWORKS[0]),
    Run("moadg (x4)", "2026-11-27: sharp patches", CROPS, 8 * 64**2, NETWORKS[4]),
    Run("attentive-deblur (x1)", "2026-11-27: clean blur for att", CROPS, 8 * 128**2, NETWORKS[0]),
    Run("msan (x1)", "2026-11-27: clean blur for att", CROPS, 8 * 128**2, NETWORKS[1]),
    Run("moadg (x4)", "2026-11-27: clean blur for moadg", CROPS, 8 * 64**2, NETWORKS[4]),
    Run("mprnet-mscam (x4)", "2026-11-27: clean blur for moadg", CROPS, 8 * 64**2, NETWORKS[2]),
    Run("gfn (x4)", "2026-11-28: clean blur", CROPS, 8 * 64**2, NETWORKS[3]),
    Run("gfn (x4)", "2026-11-29: gfn once", CROPS, 8 * 64**2, NETWORKS[3]),
    Run("msan (x1), full size", "2026-11-28: other", CROPS, 8 * 128**2, SHAPES[0]),
    Run("msan (x1), full size", "2026-11-28: msan at full", CROPS, 8 * 128**2, SHAPES[0]),
    Run("msan (x1), full size", "2026-11-28: msan for two", CROPS, 8 * 128**2, SHAPES[0]),
    Run("msan (x1), full size", "2026-11-28: msan ann", CROPS, 8 * 128**2, SHAPES[0]),
    Run("msan (x1), full size", "2026-11-28: msan at a", CROPS, 8 * 128**2, SHAPES[0]),
    Run("msan (x1), full size", "2026-11-29: msan from the mean", CROPS, 8 * 128**2, SHAPES[0]),
    Run("msan (x1), full size", "2026-11-29: msan from the released", CROPS, 8 * 128**2, SHAPES[0]),
    Run("mprnet-mscam (x4)", "2026-11-28: mprnet-mscam with", CROPS, 8 * 64**2, NETWORKS[2]),
    Run("maxim-mscam", "2026-11-25: maxim.gopro", SETS, 16 * 48**2),
    Run("maxim-mscam", "2026-11-26: fine-tuning", SETS, 128**2),
    Run("maxim-mscam", "2026-11-26: windows", SETS, 128**2),
    Run("maxim-mscam", "2026-11-26: 900 steps", SETS, 128**2),
    Run("maxim-mscam", "2026-11-26: the module alone", SETS, 5 * 64**2),
    Run("maxim-mscam", "2026-11-26: the fourth run", SETS, 128**2),
    Run("maxim-mscam", "2026-11-27: two stages", SETS, 128**2),
    Run("maxim", "2026-11-26: maxim.motion", X1, (3 * 128**2 + 256**2) // 4),
)


def main() -> None:
    """Read, draw, write."""
    log, target = (Path(text) for text in sys.argv[1:])
    sections = {part.split("\n")[0]: part for part in log.read_text("utf-8").split("\n## ")[1:]}
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "curves", "font.size": 9})
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 4.2), layout="constrained")
    axes = {CROPS: left, SETS: middle, X1: right}
    seen: dict[str, float] = {}
    colours: dict[tuple[object, str], str] = {}
    for run in RUNS:
        text = next(text for heading, text in sections.items() if heading.startswith(run.section))
        first, last = seen.get(run.name, 0.0), 0.0
        for column in run.columns:
            label = run.name if run.columns == CROPS else column.strip("`")
            key = run.columns, label
            for points in curves(run, text, column):
                x = [max(1.0, first + step * run.pixels / UNIT) for step, _ in points]
                (line,) = axes[run.columns].plot(
                    x,
                    [gain for _, gain in points],
                    marker=".",
                    color=colours.get(key),
                    label=label if key not in colours else None,
                )
                colours[key] = line.get_color()
                last = max(last, x[-1])
        seen[run.name] = last
    titles = "12 validation crops", "maxim-mscam (x4), after MAXIM", "maxim (x1), last stage"
    for axis, title in zip(axes.values(), titles, strict=True):
        axis.set(xscale="log", xlabel="patches of 64x64 seen", ylabel="gain, dB", title=title)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    middle.set_ylim(0, 3.5)
    right.set_ylim(0, 4.5)
    left.set_ylim(-0.2, 1.9)  # room for the legend
    figure.savefig(target, metadata={"Date": None})


def curves(run: Run, section: str, column: str) -> Iterator[list[Point]]:
    """Return steps and gains; a new curve begins where other pictures are scored (`, crops`)."""
    points: list[Point] = []
    before, start, kind = 0, 0, ""
    for step_text, cell in cells(run, section, column):
        found = re.fullmatch(r"([\d,]*\d)(, crops)?", step_text)
        gain = re.match(r"\W*([+-]\d+\.\d+)", cell)
        if not found or not gain:
            continue
        step = int(found[1].replace(",", ""))
        if (found[2] or "") != kind and points:
            yield points
            points = []
        elif step < before:  # the next phase
            start += before
        kind, before = found[2] or "", step
        points.append((start + step, float(gain[1])))
    yield points


def cells(run: Run, section: str, column: str) -> Iterator[tuple[str, str]]:
    """Return the cells of `step` and another column, of every table that has both."""
    header: list[str] = []
    ours = not run.part
    for line in section.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = row
        elif "step" in header and column in header:
            if run.part and row[0] in NETWORKS + SHAPES:
                ours = row[0] == run.part
            if ours:
                yield row[header.index("step")], row[header.index(column)]


if __name__ == "__main__":
    main()
