"""What the papers print, as data: where each number stands, and what they leave unsaid."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

from restore_cli.errors import unknown_name
from restore_cli.toml_file import Record

FILE = Path(__file__).parent / "published.toml"
UNSTATED = "unstated"


class Timing(Record):
    """What a paper says of its run times.

    Attributes:
        width: of the input, pixels; None for the pictures of the dataset.
        height: likewise.
        device: that it ran on, or "".
    """

    width: int | None = None
    height: int | None = None
    device: str = ""


class Published(Record):
    """One published row; numbers with the digits that were printed.

    Attributes:
        method: as the paper calls it; "this paper" for its own.
        model: ours of the same network, `bicubic` (at x1 the input itself), or "".
        config: of that model.
        recipe: by which `restore train` makes such weights.
        tlsc: whether its statistics were local; None where it does not matter.
        self_ensemble: whether it is the mean of eight poses; None where that is not said.
        psnr: dB.
        ssim: as the table's protocol has it.
        ms_ssim: of five scales.
        params_m: millions of parameters.
        size_mb: of the weights, MB.
        time_s: seconds a picture.
        train_days: of the training.
        psnr_per_video: dB, in the order of the dataset's groups.
        trained_on: dataset, where the table tells networks apart by it.
        cited: whether the paper took it from another.
        from_text: whether it stands in running text.
        protocol: where it is not the table's; a name in `protocol.PROTOCOLS`, or "unstated".
        variant: which parts are on, in an ablation.
        facts: other numbers, by name.
        image: number of the picture, under a figure.
        note: what else is printed.
        odd: where it contradicts another table, or the text.
    """

    method: str
    model: str = ""
    config: str = ""
    recipe: str = ""
    tlsc: bool | None = None
    self_ensemble: bool | None = None
    psnr: Decimal | None = None
    ssim: Decimal | None = None
    ms_ssim: Decimal | None = None
    params_m: Decimal | None = None
    size_mb: Decimal | None = None
    time_s: Decimal | None = None
    train_days: Decimal | None = None
    psnr_per_video: tuple[Decimal, ...] = ()
    trained_on: str = ""
    cited: bool = False
    from_text: bool = False
    protocol: str = ""
    variant: dict[str, bool | int | str] = {}
    facts: dict[str, bool | int | str] = {}
    image: int | None = None
    note: str = ""
    odd: str = ""

    @property
    def own(self) -> bool:
        """Whether the weights of its model's authors are what was measured, by name."""
        theirs = authors_weights().get(self.model)
        return theirs is not None and self.recipe in theirs.recipes


class Table(Record):
    """A table of a paper, or the part of it that is on one dataset.

    Attributes:
        paper: key of `papers`.
        table: its number or name in the paper.
        kind: comparison and ablation have scores of a dataset; the others are printed only, but for
            run times in the text.
        dataset: name in `datasets.DATASETS`, or "".
        protocol: that it is measured by here, a name in `protocol.PROTOCOLS`, or "".
        timing: where it has run times.
        assumptions: what the paper does not say, by the option that changes it.
        also: another table of the paper whose rows stand in for its own.
        source: where it is not the paper.
        note: what the paper says of it.
        rows: in order.
    """

    paper: str
    table: str
    kind: Literal["comparison", "ablation", "datasets", "figure", "text", "missing"]
    dataset: str = ""
    protocol: str = ""
    timing: Timing | None = None
    assumptions: dict[str, str] = {}
    also: str = ""
    source: str = ""
    note: str = ""
    rows: tuple[Published, ...] = ()

    @property
    def name(self) -> str:
        """The name that `restore benchmark --table` takes."""
        return f"{self.paper}/{self.table}"

    @property
    def title(self) -> str:
        """The title that reports show, e.g. "Table 1"."""
        return f"Table {self.table}" if self.table.isdigit() else self.table.replace("-", " ")

    def lines(self) -> Iterator[tuple[Table, Published]]:
        """The rows of this table and of the one in `also`, each with its table."""
        yield from ((self, row) for row in self.rows)
        for table in get_table(f"{self.paper}/{self.also}") if self.also else ():
            if table.dataset == self.dataset:
                yield from ((table, row) for row in table.rows)


class AuthorsWeights(Record):
    """Where a network's authors have their weights.

    Attributes:
        file: its name; "" where they published none.
        home: page of their code.
        recipes: by which such weights are trained.
    """

    file: str
    home: str
    recipes: tuple[str, ...]


class _File(Record):
    weights: dict[str, AuthorsWeights]
    papers: dict[str, str]
    tables: tuple[Table, ...]


@cache
def _file() -> _File:
    return _File.model_validate(tomllib.loads(FILE.read_text("utf-8"), parse_float=Decimal))


def all_tables() -> tuple[Table, ...]:
    """Every table, one per dataset, in the order of the papers."""
    return _file().tables


def papers() -> dict[str, str]:
    """Authors and title of each paper, by the name that its tables have."""
    return _file().papers


def authors_weights() -> dict[str, AuthorsWeights]:
    """Where the authors of each model publish their weights, by model."""
    return _file().weights


def get_table(name: str) -> list[Table]:
    """The parts of a table, one per dataset.

    Raises:
        UsageError: unknown; the nearest is suggested.
    """
    found = [table for table in all_tables() if table.name == name]
    if not found:
        raise unknown_name("table", name, {table.name for table in all_tables()})
    return found


def published_on(dataset: str) -> list[tuple[Table, Published]]:
    """Rows of whole methods on a dataset, with their tables."""
    return _rows(lambda table: table.dataset == dataset and table.kind == "comparison")


def ablation_recipes() -> set[str]:
    """Recipes of the rows that are not a paper's own network."""
    rows = _rows(lambda table: True)
    return {row.recipe for _, row in rows if row.recipe and not row.own}


def _rows(wanted: Callable[[Table], bool]) -> list[tuple[Table, Published]]:
    return [(table, row) for table in all_tables() if wanted(table) for row in table.rows]


def columns_of(table: Table) -> tuple[str, ...]:
    """Names of the columns that at least one row of a table fills."""
    return tuple(name for name in _CELLS if any(_CELLS[name](row) != "-" for row in table.rows))


def rows_of(table: Table) -> list[tuple[str, ...]]:
    """The rows of a table as text, one string per column of `columns_of`."""
    columns = columns_of(table)
    return [tuple(_CELLS[name](row) for name in columns) for row in table.rows]


def size_of(row: Published) -> str:
    """The size of a network: parameters or megabytes, or a dash."""
    if row.params_m is not None:
        return f"{row.params_m} M"
    return "-" if row.size_mb is None else f"{row.size_mb} MB"


def _words(values: dict[str, bool | int | str]) -> str:
    """Facts in a few words: what is on by its name alone, what is off with a "no"."""
    said = []
    for name, value in values.items():
        text = name.replace("_", " ")
        if value is True or value is False:
            said.append(text if value else f"no {text}")
        else:
            said.append(f"{text} {value}")
    return ", ".join(said) or "-"


def _network(row: Published) -> str:
    if not row.recipe:
        return row.model or "-"
    switches = ", no TLSC" * (row.tlsc is False)
    trained = f", recipe {row.recipe}" * (row.recipe != row.model)
    return f"{row.model}, {row.config}{switches}{trained}"


def _remarks(row: Published) -> str:
    said = ["cited"] * row.cited + ["in the text"] * row.from_text
    said += ["self-ensemble"] * bool(row.self_ensemble)
    said += [f"trained on {row.trained_on}"] * bool(row.trained_on)
    said += [f"picture {row.image}"] * (row.image is not None)
    return "; ".join([*said, *filter(None, (row.note, row.odd))]) or "-"


def printed(value: Decimal | None) -> str:
    """A number as the paper prints it, or a dash."""
    return "-" if value is None else str(value)


_CELLS: dict[str, Callable[[Published], str]] = {
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
