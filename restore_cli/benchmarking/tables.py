"""Selects the parts and networks of a paper's table to measure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from restore_cli.benchmarking.published import Table, get_table
from restore_cli.datasets.registry import DATASETS
from restore_cli.errors import UsageError
from restore_cli.inference.restorer import RestorerOptions


@dataclass(frozen=True, slots=True)
class TableNetwork:
    """A network of a table.

    Attributes:
        model: name of the model.
        tlsc: whether its statistics are local; None for the default of the weights.
        self_ensemble: whether the mean of eight poses is taken.
    """

    model: str
    tlsc: bool | None
    self_ensemble: bool

    def options(self, given: RestorerOptions, self_ensemble: bool | None) -> RestorerOptions:
        """The table's options, except those that the user gave.

        Args:
            given: options of the user; `tlsc` is None if not given.
            self_ensemble: option of the user, or None.
        """
        ensemble = self.self_ensemble if self_ensemble is None else self_ensemble
        local = self.tlsc if given.tlsc is None else given.tlsc
        return dataclasses.replace(given, tlsc=local, self_ensemble=ensemble)


def table_networks(table: Table) -> list[TableNetwork]:
    """Every network of the table, with each combination of TLSC and self-ensemble in its rows."""
    found = (
        TableNetwork(row.model, row.tlsc, bool(row.self_ensemble))
        for _, row in table.lines()
        if row.is_authors_result
    )
    return list(dict.fromkeys(found))


def table_parts(name: str, dataset: str | None = None) -> list[Table]:
    """The parts of a table that can be measured, or only the part for a dataset.

    A dataset that is in none of the parts replaces that of the only part, or of the part with the
    same pictures (`gopro-linear` for `gopro`).

    Args:
        name: name of the table, such as `shoyan-2022/1`.
        dataset: the requested dataset; None for all.

    Raises:
        UsageError: the table is unknown, or the dataset can replace none of its datasets.
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
