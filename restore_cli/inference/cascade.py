"""Models one after the other, as the papers' baselines do: `mprnet+gfn`, `msan+bicubic`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import Protocol

from torch import Tensor

from restore_cli.errors import UsageError, unknown_name
from restore_cli.models.registry import MODELS
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import rounded

BICUBIC = "bicubic"  # a stage without weights
DEFAULT_FACTOR = 4  # of a cascade in which only bicubic enlarges

Report = Callable[[int, int], None]  # (tiles done, tiles in all)


class Stage(Protocol):
    """What restores one picture: a `Restorer`, bicubic interpolation, or a cascade of them."""

    scale: int

    def __call__(self, image: Tensor, report: Report = ..., depth: int | None = ...) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> (1, 3, scale * H, scale * W).

        In [0, 1]; with a depth of 8 or 16 bits in whole numbers, uint8 or uint16.
        """


class Bicubic:
    """Bicubic enlargement as MATLAB's imresize: the baseline of every table."""

    def __init__(self, scale: int = DEFAULT_FACTOR) -> None:
        self.scale = scale

    def __call__(
        self,
        image: Tensor,
        report: Report = lambda done, tiles: None,
        depth: int | None = None,
    ) -> Tensor:
        """See `Stage`."""
        height, width = (self.scale * side for side in image.shape[-2:])
        enlarged = resize_bicubic(image, height, width)
        report(1, 1)
        return enlarged.clamp(0, 1) if depth is None else rounded(enlarged, depth)


class Cascade:
    """Stages in order. Between them pictures are float in [0, 1], not rounded to 8 bits."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self.scale = prod(stage.scale for stage in stages)

    def __call__(
        self,
        image: Tensor,
        report: Report = lambda done, tiles: None,
        depth: int | None = None,
    ) -> Tensor:
        """See `Stage`. Each stage counts as an equal share of the work."""
        whole = 1000  # parts in which a stage's tiles are counted
        for n, stage in enumerate(self.stages):

            def report_all(done: int, tiles: int, before: int = n) -> None:
                report(before * whole + done * whole // tiles, len(self.stages) * whole)

            last = n == len(self.stages) - 1
            image = stage(image, report_all, depth if last else None)
        return image


def split_names(text: str) -> tuple[str, ...]:
    """The stages that `--model` names, in order.

    Raises:
        UsageError: an unknown name, or bicubic twice.
    """
    names = tuple(name.strip() for name in text.split("+"))
    for name in names:
        if name != BICUBIC and name not in MODELS:
            raise unknown_name("model", name, [*MODELS, BICUBIC])
    if names.count(BICUBIC) > 1:
        raise UsageError(f"--model '{text}' names {BICUBIC} twice", hint="once enlarges enough")
    return names


def split_weights(names: Sequence[str], text: str | None) -> list[str | None]:
    """The given weights, stage by stage; None for a model's own, and for bicubic.

    Raises:
        UsageError: not as many as there are models.
    """
    models = [name for name in names if name != BICUBIC]
    if text is None:
        return [None] * len(names)
    weights = text.split("+") if len(models) > 1 else [text]  # a path may hold a plus
    if not models:
        raise UsageError(f"{BICUBIC} takes no weights", hint="leave out --weights")
    if len(weights) != len(models):
        raise UsageError(
            f"--weights '{text}' names {len(weights)} files for {' and '.join(models)}",
            hint="join one for each with +, in order, or give none for the models' own",
        )
    given = iter(weights)
    return [None if name == BICUBIC else next(given) for name in names]


def own_scale(names: Sequence[str]) -> int:
    """Enlargement where none is asked for: the models', or 4 where only bicubic enlarges."""
    models = prod(MODELS[name].scale for name in names if name != BICUBIC)
    return models * bicubic_factor(names, None) if BICUBIC in names else models


def bicubic_factor(names: Sequence[str], scale: int | None) -> int:
    """What bicubic must enlarge, so that the cascade reaches the scale that is asked for."""
    others = prod(MODELS[name].scale for name in names if name != BICUBIC)
    wanted = scale or max(DEFAULT_FACTOR, others)
    return max(1, ceil(wanted / others))
