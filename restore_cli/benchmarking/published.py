"""Published numbers as data, with where they were read."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from restore_cli.benchmarking.protocol import PROTOCOLS

FILE = Path(__file__).parent / "published.toml"
UNSTATED = "unstated"


class Published(BaseModel):
    """One published result.

    Attributes:
        dataset: name in `datasets.DATASETS`.
        method: as its authors call it.
        model: ours of the same network, or "".
        psnr: dB.
        ssim: or None.
        protocol: name in `protocol.PROTOCOLS`, or "unstated".
        source: paper and table, or page.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    method: str
    model: str = ""
    psnr: float
    ssim: float | None = None
    protocol: str
    source: str


@cache
def all_published() -> tuple[Published, ...]:
    """Every row of `published.toml`."""
    rows = tomllib.loads(FILE.read_text("utf-8"))["rows"]
    return tuple(Published.model_validate(row) for row in rows)


def published_on(dataset: str) -> list[Published]:
    """The rows of a dataset."""
    return [row for row in all_published() if row.dataset == dataset]


def why_different(
    row: Published,
    protocol: str,
    *,
    whole: bool,
    authors_weights: bool = False,
    ensemble: bool = False,
    precision: str = "float32",
) -> str:
    """What stands between a published number and one measured here; "" if nothing is known to.

    Args:
        row: the published one.
        protocol: name of the one measured with.
        whole: whether the whole dataset was measured.
        authors_weights: whether the weights measured are the authors' own.
        ensemble: whether the mean of eight poses was measured.
        precision: of the network measured.
    """
    reasons = []
    if row.protocol == UNSTATED:
        reasons.append("its protocol is not stated")
    elif row.protocol != protocol:
        reasons.append(f"measured by '{protocol}', published by '{row.protocol}'")
        theirs, ours = PROTOCOLS[row.protocol], PROTOCOLS[protocol]
        if theirs.crop != ours.crop:
            reasons.append(f"{ours.crop} px cropped here, {theirs.crop} there")
    if row.model and not authors_weights:
        reasons.append("other weights")
    if not row.model:
        reasons.append("a network that is not here")
    if ensemble:
        reasons.append("self-ensemble here")
    if precision != "float32":
        reasons.append(f"{precision} here")
    if not whole:
        reasons.append("only a part of the pictures")
    return "; ".join(reasons)
