"""From names of models and weights to what restores pictures: one network or several in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from restore_cli.errors import UsageError, unknown_name
from restore_cli.inference.loading import LoadedNetwork, load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.stages import BICUBIC, Bicubic, Report, StageFacts, no_report
from restore_cli.inference.tlsc import has_global_statistics
from restore_cli.models.registry import MODELS
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import rounded
from restore_cli.weights.manifest import default_model
from restore_cli.weights.store import locate

_DEFAULT_SCALE = 4  # where only bicubic enlarges
_MOST_NETWORKS = 4  # kept, also when nobody uses them
_PARTS = 1000  # in which the tiles of one stage of several are counted


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Everything that is needed to build a pipeline, in this process or in another.

    Attributes:
        models: names of the stages in order; `bicubic` is one.
        weights: of each, as `weights.store.locate` takes them; None for a model's own.
        scale: output pixels per input pixel of the whole.
        options: of every network.
    """

    models: tuple[str, ...]
    weights: tuple[str | None, ...]
    scale: int
    options: RestorerOptions

    @classmethod
    def parse(
        cls, model: str | None, weights: str | None, scale: int | None, options: RestorerOptions
    ) -> PipelineSpec:
        """Read what a user asked for.

        Args:
            model: a name, or several joined by +; None for that of the weights, or where there are
                none for the default model of the scale.
            weights: a name, a path or hf://…; for several models as many, joined by +; None for
                the models' own.
            scale: output pixels per input pixel; None for what the models give.
            options: of every network.

        Raises:
            UsageError: unknown names, or not as many weights as models.
            WeightsError: the model is to be read from weights that are missing or of no model.
        """
        if model is None and weights:
            loaded = _load(weights, None)
            return cls((loaded.model.name,), (weights,), scale or loaded.model.scale, options)
        models = split_names(model or default_model(scale))
        files = _split_weights(models, weights)
        return cls(models, files, scale or own_scale(models), options)

    @property
    def name(self) -> str:
        """Of the models, joined by +."""
        return "+".join(self.models)

    def load(self, device: torch.device | None = None) -> Pipeline:
        """Load every network. One that this process has loaded already is not loaded again.

        Args:
            device: to run on instead of that of the options.

        Raises:
            UsageError: options that do not fit a network.
            WeightsError: weights that are missing or do not fit.
            DeviceError: the device is not there.
        """
        options = dataclasses.replace(self.options, device=device or self.options.device)
        stages: list[Restorer | Bicubic] = []
        for name, file in zip(self.models, self.weights, strict=True):
            if name == BICUBIC:
                stages.append(Bicubic(1))  # `to_scale` knows how much is left for it
                continue
            loaded, own = _load(file, name), options
            if len(self.models) > 1 and not has_global_statistics(loaded.network):
                own = dataclasses.replace(options, tlsc=None)  # meant for the others
            stages.append(Restorer(loaded, own))
        spec = dataclasses.replace(self, options=options)
        return Pipeline(spec, tuple(stages)).to_scale(self.scale)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Networks made ready, in order. Between them pictures are float in [0, 1], not rounded.

    Attributes:
        spec: it was built from; the device is that of the networks.
        stages: in order.
    """

    spec: PipelineSpec
    stages: tuple[Restorer | Bicubic, ...]

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        return self.spec.scale

    @property
    def options(self) -> RestorerOptions:
        """Of every network."""
        return self.spec.options

    @property
    def facts(self) -> tuple[StageFacts, ...]:
        """Of each stage in order."""
        return tuple(stage.facts for stage in self.stages)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the pixels, whatever the device.

        The automatic size of tiles is not in it: it follows free memory, and results differ by less
        than rounding shows. A size that was asked for is: without TLSC it decides what statistics
        see.
        """
        names = ("model", "scale", "sha256", "tlsc", "overlap")
        return {
            "stages": [{name: getattr(fact, name) for name in names} for fact in self.facts],
            "precision": str(self.options.dtype).removeprefix("torch."),
        } | {
            field.name: getattr(self.options, field.name)
            for field in dataclasses.fields(self.options)
            if field.name not in ("device", "dtype", "tlsc", "overlap")  # said above, as they are
        }

    def __call__(
        self, image: Tensor, report: Report = no_report, depth: int | None = None
    ) -> Tensor:
        """Restore one picture.

        Args:
            image: (1, 3, H, W), float in [0, 1] or whole numbers.
            report: called with (tiles done, tiles in all); each stage is an equal share of them.
            depth: bits a channel, 8 or 16, to round to; None for no rounding.

        Returns:
            (1, 3, scale * H, scale * W): uint8 or uint16 with a depth, else float, which goes a
            little beyond [0, 1] where the networks' own scale is another and was resampled.

        Raises:
            DeviceError: out of memory.
            PictureError: a network's output is not finite.
        """
        size = tuple(side * self.scale for side in image.shape[-2:])
        fits = prod(stage.scale for stage in self.stages) == self.scale
        for n, stage in enumerate(self.stages):
            last = n == len(self.stages) - 1
            image = stage(image, self._share(report, n), depth if last and fits else None)
        if fits:
            return image
        image = resize_bicubic(image, *size)
        return image if depth is None else rounded(image, depth)

    def to_scale(self, scale: int) -> Pipeline:
        """The same networks for another scale, which bicubic reaches if it is among the stages."""
        networks = prod(stage.scale for stage in self.stages if isinstance(stage, Restorer))
        bicubic = Bicubic(ceil(scale / networks))
        stages = tuple(bicubic if isinstance(one, Bicubic) else one for one in self.stages)
        return Pipeline(dataclasses.replace(self.spec, scale=scale), stages)

    def describe(self, where: str = "") -> list[str]:
        """A line for people per stage: which weights, which device, what decides the pixels.

        Args:
            where: it runs, if not on the options' device.
        """
        ensemble = ", self-ensemble" * self.options.self_ensemble
        return [
            f"{fact.weights} (sha256 {fact.sha256[:12]}) on {where or self.options.device}, "
            f"tlsc {fact.tlsc}, overlap {fact.overlap}{ensemble}"
            if fact.weights
            else f"{fact.model} x{fact.scale}"
            for fact in self.facts
        ]

    def _share(self, report: Report, number: int) -> Report:
        """Progress of one stage as progress of the whole."""
        count = len(self.stages)
        if count == 1:
            return report
        return lambda done, tiles: report(number * _PARTS + done * _PARTS // tiles, count * _PARTS)


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


def own_scale(names: Sequence[str]) -> int:
    """Enlargement where none is asked for: the models', or 4 where only bicubic enlarges."""
    models = prod(MODELS[name].scale for name in names if name != BICUBIC)
    return max(_DEFAULT_SCALE, models) if BICUBIC in names else models


def _split_weights(names: Sequence[str], text: str | None) -> tuple[str | None, ...]:
    """The given weights, stage by stage; None for a model's own, and for bicubic."""
    models = [name for name in names if name != BICUBIC]
    if text is None:
        return (None,) * len(names)
    weights = text.split("+") if len(models) > 1 else [text]  # a path may hold a plus
    if not models:
        raise UsageError(f"{BICUBIC} takes no weights", hint="leave out --weights")
    if len(weights) != len(models):
        raise UsageError(
            f"--weights '{text}' names {len(weights)} of {len(models)} files, "
            f"for {' and '.join(models)}",
            hint="join one for each with +, in order, or give none for the models' own",
        )
    given = iter(weights)
    return tuple(None if name == BICUBIC else next(given) for name in names)


def _load(weights: str | None, model: str | None) -> LoadedNetwork:
    """A network of verified weights; restorers share it and leave it as it is.

    A file that has not been touched since this process read it is not read again.
    """
    file = locate(weights, model)
    status = file.path.stat()
    key = (file.name, file.path, status.st_ino, status.st_mtime_ns, status.st_size)
    loaded = _networks.pop(key, None)
    if loaded is None or model not in (None, loaded.model.name):
        loaded = load_network(file, expected_model=model)
    _networks[key] = loaded
    while len(_networks) > _MOST_NETWORKS:
        del _networks[next(iter(_networks))]
    return loaded


_networks: dict[tuple[object, ...], LoadedNetwork] = {}  # the last ones, in order of use
