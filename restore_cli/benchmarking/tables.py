"""Selects what to run for a table of a paper: its parts, and its networks with their options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from restore_cli.benchmarking.published import Table, get_table
from restore_cli.datasets.registry import DATASETS
from restore_cli.errors import UsageError
from restore_cli.inference.restorer import RestorerOptions


@dataclass(frozen=True, slots=True)
class Wanted:
    """A network that a table has rows of.

    Attributes:
        model: name.
        tlsc: whether its statistics are local; None for as the weights say.
        self_ensemble: whether the mean of eight poses is taken.
    """

    model: str
    tlsc: bool | None
    self_ensemble: bool

    def options(self, given: RestorerOptions, self_ensemble: bool | None) -> RestorerOptions:
        """The table's switches, but for those that were given.

        Args:
            given: by the user; `tlsc` None where it was not.
            self_ensemble: likewise.
        """
        ensemble = self.self_ensemble if self_ensemble is None else self_ensemble
        local = self.tlsc if given.tlsc is None else given.tlsc
        return dataclasses.replace(given, tlsc=local, self_ensemble=ensemble)


def wanted(table: Table) -> list[Wanted]:
    """Every network of the table, once for each setting of its rows' switches."""
    found = (
        Wanted(row.model, row.tlsc, bool(row.self_ensemble)) for _, row in table.lines() if row.own
    )
    return list(dict.fromkeys(found))


def parts(name: str, dataset: str | None = None) -> list[Table]:
    """The parts of a table that can be measured, or the one on a dataset.

    A dataset that is in none of them takes the place of the only part, or of that whose pictures it
    shares (`gopro-linear` for `gopro`).

    Args:
        name: such as `shoyan-2022/1`.
        dataset: asked for instead of all.

    Raises:
        UsageError: an unknown table, or a dataset that cannot stand for any of its own.
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
            f"table '{name}' has no part on '{dataset}'",
            hint=f"its datasets: {', '.join(folders)}",
        )
    return chosen
