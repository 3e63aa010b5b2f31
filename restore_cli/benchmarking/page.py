"""The report as a self-contained HTML page: table, plot, and pictures with a slider."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from restore_cli.benchmarking.report import (
    COLUMNS,
    SCORE_COLUMNS,
    Report,
    groups_table,
    heading,
    published_table,
    table,
)
from restore_cli.benchmarking.run import Benchmark, Row, image_path, load_sample
from restore_cli.image import read_image
from restore_cli.inference.stages import BICUBIC
from restore_cli.jobs.compare import data_uri, page_template
from restore_cli.jobs.preflight import window_of_largest_mean
from restore_cli.resample import resize_bicubic

SHOWN, SIDE = 3, 256  # number of worst and of best pictures per entry; pixels of a crop
LEFT, RIGHT, TOP, BOTTOM = 60, 600, 30, 270  # edges of the plot


def to_html(benchmark: Benchmark, report: Report) -> str:
    """Render the report of a benchmark with saved pictures as HTML."""
    template = page_template("benchmarking/page.html.j2")
    points, ticks = _plot(report)
    published_columns, published = published_table(report)
    group_columns, group_rows = groups_table(report)
    return template.render(
        report=report,
        heading=heading(report),
        columns=COLUMNS,
        scores=SCORE_COLUMNS,
        rows=table(report),
        published_columns=published_columns,
        published=published,
        group_columns=group_columns,
        group_rows=group_rows,
        points=points,
        ticks=ticks,
        groups=list(_groups(benchmark, report)),
    )


def _plot(report: Report) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Place points and ticks in the drawing's coordinates; the axis of costs is logarithmic."""
    known = [e for e in report.entries if e.facts["macs_64x64"] is not None]
    entries = [e for e in known if math.isfinite(e.psnr)]
    if len(entries) < 2:
        return [], {"x": [], "y": []}
    costs = [max(e.facts["macs_64x64"] / 1e9, 0.01) for e in entries]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    high = max(high, low + 1)
    scores = [e.psnr for e in entries]
    bottom, top = math.floor(min(scores) * 2) / 2, math.ceil(max(scores) * 2 + 0.2) / 2

    def across(cost: float) -> float:
        return round(LEFT + (RIGHT - 80 - LEFT) * (math.log10(cost) - low) / (high - low), 1)

    def up(score: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (score - bottom) / (top - bottom), 1)

    points = [
        {"x": across(cost), "y": up(e.psnr), "label": e.facts["name"]}
        for cost, e in zip(costs, entries, strict=True)
    ]
    x = [{"at": across(10.0**n), "label": f"{10.0**n:g}"} for n in range(low, high + 1)]
    count = round((top - bottom) / 0.5)
    step = max(1, math.ceil(count / 6))
    y = [
        {"at": up(bottom + n / 2), "label": f"{bottom + n / 2:g}"}
        for n in range(0, count + 1, step)
    ]
    return points, {"x": x, "y": y}


def _groups(benchmark: Benchmark, report: Report) -> Any:
    """Yield the worst and best pictures of each entry with a network."""
    samples = {sample.name: sample for sample in benchmark.samples}
    scored = [row for row in report.rows if not row.error]
    finite = [row for row in scored if row.entry == BICUBIC and math.isfinite(row.psnr)]
    baseline = {row.sample: row.psnr for row in finite}
    for entry in benchmark.entries:
        if not any(stage.weights for stage in entry.pipeline.stages):
            continue
        rows = [row for row in scored if row.entry == entry.name]
        ordered = sorted(rows, key=lambda row: row.psnr - baseline.get(row.sample, 0.0))
        middle = (len(ordered) + 1) // 2  # so that no picture is shown twice
        for title, chosen in (
            ("worst", ordered[:middle][:SHOWN]),
            ("best", ordered[middle:][: -1 - SHOWN : -1]),
        ):
            if not chosen:
                continue
            pairs = [_pair(benchmark, row, samples[row.sample], baseline) for row in chosen]
            yield {"title": f"{entry.name}: {title}", "pairs": pairs}


def _pair(
    benchmark: Benchmark, row: Row, sample: Any, baseline: dict[str, float]
) -> dict[str, str]:
    degraded, references = load_sample(benchmark.dataset, sample, benchmark.protocol)
    restored = read_image(image_path(benchmark.output, row)).pixels
    enlarged = resize_bicubic(degraded, *references[0].shape[-2:])
    caption = f"{row.psnr:.2f} dB"
    if row.sample in baseline:
        caption += f", {row.psnr - baseline[row.sample]:+.2f} over bicubic"
    crops = _crops([enlarged, restored, references[0]])
    keys = ("input", "result", "reference")
    return {"name": row.sample, "caption": caption} | dict(zip(keys, crops, strict=True))


def _crops(images: Sequence[Tensor]) -> list[str]:
    """Crop each image to the part with the most detail in the reference, as data URIs."""
    grey = images[-1].mean(1)[0]
    detail = grey.diff(dim=0)[:, :-1].abs() + grey.diff(dim=1)[:-1].abs()
    top, left, _ = window_of_largest_mean(detail.numpy(), SIDE, SIDE)
    return [data_uri(image[..., top : top + SIDE, left : left + SIDE]) for image in images]
