"""Terminal output: tables whose names can be copied, and one live progress bar.

To print a line while a bar is live, the bar is erased, the line is written, and the bar is drawn
again below it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from restore_cli.formatting import format_clock

_PRIOR = 0.1  # share of the work at which its own pace weighs as much as the plan's estimate
_GAP = 2  # cells between columns
quiet = False  # whether --quiet was given: no notes and no progress
_lock = threading.RLock()
_living: list[Progress] = []


@contextmanager
def bar_aside() -> Iterator[None]:
    """Erase the live bar, if there is one, and redraw it at the end of the block."""
    with _lock:
        bar = _living[-1] if _living else None
        if bar is not None:
            bar.stop()
        try:
            yield
        finally:
            if bar is not None:
                bar.start()


def remaining_seconds(done: float, elapsed: float, expected: float | None) -> float | None:
    """Return the seconds left of a task, or None if nothing is known yet.

    The estimate of the plan dominates at first, and the task's own pace later.

    Args:
        done: share of the work that is done, 0 to 1.
        elapsed: seconds since the start.
        expected: seconds for all of the work by the plan; None if there is no plan.

    >>> remaining_seconds(0.0, 2.0, 60.0), remaining_seconds(0.5, 30.0, None)
    (58.0, 30.0)
    """
    if done <= 0:
        return None if expected is None else max(0.0, expected - elapsed)
    own = elapsed / done
    weight = 1.0 if expected is None else done / (done + _PRIOR)
    total = weight * own + (1 - weight) * (expected or 0.0)
    return max(0.0, total - elapsed)


class _TimeLeft(ProgressColumn):
    """Time left; before the first tile from the task's field `expected`, in seconds."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished or not task.total:
            return Text("")
        expected = task.fields.get("expected")
        left = remaining_seconds(task.completed / task.total, task.elapsed or 0.0, expected)
        return Text(
            "" if left is None else f"{format_clock(left)} left", style="progress.remaining"
        )


class Bar(Progress):
    """Progress bar with time left on stderr; hidden if stderr is not a terminal, or if quiet.

    A task's field `expected` is its estimated time by the plan, in seconds.
    """

    hidden = False  # of every bar, by --no-progress

    def __init__(self, unit: str) -> None:
        console = Console(stderr=True, emoji=False)
        # Rich 13 ends even a disabled bar with a line.
        console.quiet = quiet or self.hidden or not is_terminal(sys.stderr)
        one_line = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=one_line),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            _TimeLeft(),
            console=console,
            transient=True,
            disable=console.quiet,
            expand=True,
        )

    def start(self) -> None:
        """Draw the bar below the last line; a new display, since an old one would move up."""
        self.live = Live(
            console=self.console,
            get_renderable=self.get_renderable,
            transient=True,
            redirect_stdout=False,  # rich would send it to this console, which is stderr
        )
        super().start()

    def __enter__(self) -> Self:
        with _lock:
            super().__enter__()
            if not self.disable:
                _living.append(self)
        return self

    def __exit__(self, *raised: Any) -> None:
        with _lock:
            if self in _living:
                _living.remove(self)
            super().__exit__(*raised)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None
) -> None:
    """Print a table that fits the console (stdout by default), with names that can be copied.

    The first column is never wrapped, and the others are wrapped only between words. If the table
    does not fit, each row is printed as a block: its name, and below it one line per column.
    """
    rows = [tuple(row) for row in rows]
    console = console or Console(highlight=False, emoji=False)
    least = [_widest_word(n, columns, rows) for n in range(len(columns))]
    spare = console.width - sum(least) - _GAP * (len(columns) - 1)
    if spare >= 0:
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for n, column in enumerate(columns):
            longest = max(map(cell_len, (column, *(row[n] for row in rows))))
            more = min(spare, longest - least[n])
            spare -= more
            grid.add_column(column, no_wrap=n == 0, width=least[n] + more)
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        console.print(grid)
        return
    for row in rows:
        console.print(Text(row[0]), soft_wrap=True)
        facts = zip(columns[1:], row[1:], strict=True)
        show_facts(((f"  {name}", cell) for name, cell in facts if cell not in ("", "-")), console)


def show_facts(facts: Iterable[tuple[str, str]], console: Console | None = None) -> None:
    """Print names and values, on stdout by default; only values are wrapped, between words."""
    facts = list(facts)
    console = console or Console(highlight=False, emoji=False)
    wide = max((cell_len(name) for name, _ in facts), default=0)
    for name, value in facts:
        longest = max(map(cell_len, value.split()), default=0)
        if wide + _GAP + longest > console.width:  # the terminal breaks it, and copies it whole
            console.print(
                Text(f"{name}{' ' * (wide - cell_len(name) + _GAP)}{value}"), soft_wrap=True
            )
            continue
        grid = Table(box=None, pad_edge=False, show_header=False)
        grid.add_column(no_wrap=True, min_width=wide)
        grid.add_row(Text(name), Text(value))
        console.print(grid)


def _widest_word(n: int, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the width a column needs: its longest cell if first, else its longest word."""
    cells = [columns[n], *(row[n] for row in rows)]
    words = cells if n == 0 else [word for cell in cells for word in cell.split() or [""]]
    return max(map(cell_len, words))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is open and a terminal; rich says so of a file if FORCE_COLOR is set."""
    return stream is not None and stream.isatty()
