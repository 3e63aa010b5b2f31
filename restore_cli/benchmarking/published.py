"""The papers' tables as data, with the source of each number and unstated conventions."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

from restore_cli.datasets.registry import DATASETS
from restore_cli.errors import UsageError, unknown_name
from restore_cli.toml_file import Record

FILE = Path(__file__).parent / "published.toml"
UNSTATED = "unstated"


class Timing(Record):
    """A paper's statements about its run times."""

    width: int | None = None  # width of the input, pixels; None for the pictures of the dataset
    height: int | None = None  # height of the input, pixels; None for the pictures of the dataset
    device: str = ""  # device of the measurement, or ""


class PublishedRow(Record):
    """One published row; numbers have the printed digits."""

    method: str  # name in the paper; "this paper" for its own method
    model: str = ""  # our model of the same network, `bicubic` (at x1 the input itself), or ""
    config: str = ""  # config of that model
    recipe: str = ""  # recipe of `restore train` for such weights
    tlsc: bool | None = None  # whether its statistics were local; None if not applicable
    self_ensemble: bool | None = None  # whether it is the mean of eight poses; None if not stated
    psnr: Decimal | None = None  # PSNR, dB
    ssim: Decimal | None = None  # SSIM of the table's protocol
    ms_ssim: Decimal | None = None  # SSIM of five scales
    params_m: Decimal | None = None  # millions of parameters
    size_mb: Decimal | None = None  # size of the weights, MB
    time_s: Decimal | None = None  # seconds per picture
    train_days: Decimal | None = None  # duration of the training, days
    psnr_per_video: tuple[Decimal, ...] = ()  # PSNR in dB, in the order of the dataset's groups
    trained_on: str = ""  # training dataset, if the table compares several
    cited: bool = False  # whether the paper cites it from another
    from_text: bool = False  # whether it is printed in the text
    protocol: str = ""  # protocol if not the table's; a name in `protocol.PROTOCOLS`, or "unstated"
    variant: dict[str, bool | int | str] = {}  # parts of the network, in an ablation
    facts: dict[str, bool | int | str] = {}  # other numbers, by name
    image: int | None = None  # number of the picture, below a figure
    note: str = ""  # other printed information
    odd: str = ""  # contradiction with another table or the text

    @property
    def is_authors_result(self) -> bool:
        """Whether the row is that of the published weights of its model's authors."""
        theirs = load_published().weights.get(self.model)
        return theirs is not None and self.recipe in theirs.recipes


class Table(Record):
    """A table of a paper, or the part of it for one dataset."""

    paper: str  # key of `papers`
    table: str  # its number or name in the paper
    # `comparison` and `ablation` have scores of a dataset; the others are printed only, except for
    # run times in the text
    kind: Literal["comparison", "ablation", "datasets", "figure", "text", "missing"]
    dataset: str = ""  # name in `datasets.DATASETS`, or ""
    protocol: str = ""  # protocol for measurements here, a name in `protocol.PROTOCOLS`, or ""
    timing: Timing | None = None  # run times, if it has any
    # assumptions where the paper is not specific, by the option that changes them
    assumptions: dict[str, str] = {}
    also: str = ""  # another table of the paper that contains further rows
    source: str = ""  # source of the numbers, if not the paper
    note: str = ""  # notes of the paper
    rows: tuple[PublishedRow, ...] = ()  # rows in order

    @property
    def name(self) -> str:
        """The name that `restore benchmark --table` takes."""
        return f"{self.paper}/{self.table}"

    @property
    def title(self) -> str:
        """The title that reports show, e.g. "Table 1"."""
        return f"Table {self.table}" if self.table.isdigit() else self.table.replace("-", " ")

    def lines(self) -> Iterator[tuple[Table, PublishedRow]]:
        """Yield the rows of this table and of the one in `also`, each with its table."""
        yield from ((self, row) for row in self.rows)
        for table in get_table(f"{self.paper}/{self.also}") if self.also else ():
            if table.dataset == self.dataset:
                yield from ((table, row) for row in table.rows)


class AuthorsWeights(Record):
    """Where a network's authors have published their weights."""

    file: str  # name of the file; "" if they published none
    home: str  # page of their code
    recipes: tuple[str, ...]  # recipes that train such weights


class _File(Record):
    weights: dict[str, AuthorsWeights]
    papers: dict[str, str]
    tables: tuple[Table, ...]


@cache
def load_published() -> _File:
    """Return all tables, the titles of their papers, and the weights that their authors publish."""
    return _File.model_validate(tomllib.loads(FILE.read_text("utf-8"), parse_float=Decimal))


def get_table(name: str) -> list[Table]:
    """Return the parts of a table, one per dataset; raises `UsageError` if the name is unknown."""
    found = [table for table in load_published().tables if table.name == name]
    if not found:
        raise unknown_name("table", name, {table.name for table in load_published().tables})
    return found


def published_on(dataset: str) -> list[tuple[Table, PublishedRow]]:
    """List the rows of comparisons on a dataset, with their tables."""
    return [
        (table, row)
        for table in load_published().tables
        if table.dataset == dataset and table.kind == "comparison"
        for row in table.rows
    ]


def ablation_recipes() -> set[str]:
    """Name the recipes of the rows that are not a paper's main network."""
    rows = (row for table in load_published().tables for row in table.rows)
    return {row.recipe for row in rows if row.recipe and not row.is_authors_result}


def table_parts(name: str, dataset: str | None = None) -> list[Table]:
    """Return the measurable parts of a table, such as `shoyan-2022/1`; or that for a dataset.

    A dataset that is in none of the parts replaces that of the only part, or of the part with the
    same pictures (`gopro-linear` for `gopro`). Raises `UsageError` if the table is unknown, or the
    dataset can replace none of its datasets.
    """
    found = [table for table in get_table(name) if table.dataset]
    if dataset is None or not found:
        return found
    exact = [table for table in found if table.dataset == dataset]
    folders = {table.dataset: DATASETS[table.dataset].shared for table in found}
    shared = DATASETS[dataset].shared if dataset in DATASETS else ""
    near = [table for table in found if shared and folders[table.dataset] == shared]
    chosen = exact or near or (found if len(found) == 1 else [])
    if not chosen:
        raise UsageError(
            f"table '{name}' has no part for dataset '{dataset}'",
            hint=f"its datasets: {', '.join(folders)}",
        )
    return chosen


def columns_of(table: Table) -> tuple[str, ...]:
    """Name the columns that are not empty in all rows of a table."""
    return tuple(name for name in _CELLS if any(_CELLS[name](row) != "-" for row in table.rows))


def rows_of(table: Table) -> list[tuple[str, ...]]:
    """Return the rows of a table as text, one string per column of `columns_of`."""
    columns = columns_of(table)
    return [tuple(_CELLS[name](row) for name in columns) for row in table.rows]


def size_of(row: PublishedRow) -> str:
    """Format the size of a network: parameters or megabytes, or a dash."""
    if row.params_m is not None:
        return f"{row.params_m} M"
    return "-" if row.size_mb is None else f"{row.size_mb} MB"


def _words(values: dict[str, bool | int | str]) -> str:
    """State facts in a few words: a flag by its name, or with "no" if it is off."""
    words = []
    for name, value in values.items():
        text = name.replace("_", " ")
        if value is True or value is False:
            words.append(text if value else f"no {text}")
        else:
            words.append(f"{text} {value}")
    return ", ".join(words) or "-"


def _network(row: PublishedRow) -> str:
    if not row.recipe:
        return row.model or "-"
    switches = ", no TLSC" * (row.tlsc is False)
    trained = f", recipe {row.recipe}" * (row.recipe != row.model)
    return f"{row.model}, {row.config}{switches}{trained}"


def _remarks(row: PublishedRow) -> str:
    words = ["cited"] * row.cited + ["in the text"] * row.from_text
    words += ["self-ensemble"] * bool(row.self_ensemble)
    words += [f"trained on {row.trained_on}"] * bool(row.trained_on)
    words += [f"picture {row.image}"] * (row.image is not None)
    return "; ".join([*words, *filter(None, (row.note, row.odd))]) or "-"


def printed(value: Decimal | None) -> str:
    """Format a number as the paper prints it, or a dash."""
    return "-" if value is None else str(value)


_CELLS: dict[str, Callable[[PublishedRow], str]] = {
    "method": lambda row: row.method,
    "network here": _network,
    "PSNR": lambda row: printed(row.psnr),
    "SSIM": lambda row: printed(row.ssim),
    "MS-SSIM": lambda row: printed(row.ms_ssim),
    "size": size_of,
    "s": lambda row: printed(row.time_s),
    "days of training": lambda row: printed(row.train_days),
    "PSNR of each video": lambda row: " ".join(map(str, row.psnr_per_video)) or "-",
    "parts": lambda row: _words(row.variant),
    "facts": lambda row: _words(row.facts),
    "remarks": _remarks,
}
