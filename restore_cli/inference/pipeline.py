"""Builds pipelines of one or more networks from the names of models and weights."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from restore_cli.errors import UsageError, unknown_name
from restore_cli.formatting import format_count
from restore_cli.inference.devices import name_of
from restore_cli.inference.loading import LoadedNetwork, load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.stages import BICUBIC, Bicubic, ProgressCallback, no_progress, resized
from restore_cli.inference.tlsc import has_global_statistics
from restore_cli.models.registry import MODELS
from restore_cli.weights.manifest import default_model
from restore_cli.weights.store import locate

_DEFAULT_SCALE = 4  # if bicubic is the only stage that enlarges
_MAX_CACHED_NETWORKS = 4  # kept in memory for reuse
_PARTS = 1000  # progress units per stage of a pipeline with several


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Everything needed to build a pipeline, in this process or another."""

    models: tuple[str, ...]  # names of the stages in order, including `bicubic`
    # weights of each stage, as `weights.store.locate` takes them; None for the model's default
    # weights
    weights: tuple[str | None, ...]
    scale: int  # output pixels per input pixel of the pipeline
    options: RestorerOptions  # options of every network

    @classmethod
    def parse(
        cls, model: str | None, weights: str | None, scale: int | None, options: RestorerOptions
    ) -> PipelineSpec:
        """Parse the options of the command line.

        Args:
            model: a name, or several joined by +; None for the model of the weights, or without
                weights for the default model of the scale.
            weights: a name, a path or hf://…; one for each model, joined by +; None for the
                models' default weights.
            scale: output pixels per input pixel; None for the models' scale.
            options: options of every network.

        Raises:
            UsageError: a name is unknown, or the numbers of weights and models differ.
            WeightsError: no model is given, and the weights are missing or of an unknown model.
        """
        if model is None and weights:
            loaded = _load(weights, None)
            return cls((loaded.model.name,), (weights,), scale or loaded.model.scale, options)
        models = split_names(model or default_model(scale))
        files = _split_weights(models, weights)
        return cls(models, files, scale or default_scale(models), options)

    @property
    def name(self) -> str:
        """Names of the models, joined by +."""
        return "+".join(self.models)

    def load(self, device: torch.device | None = None) -> Pipeline:
        """Load every network, except those loaded before; `device` replaces that of the options.

        Raises:
            UsageError: the options do not fit a network.
            WeightsError: weights are missing or do not fit.
            DeviceError: the device is not available.
        """
        networks = [
            None if name == BICUBIC else _load(file, name)
            for name, file in zip(self.models, self.weights, strict=True)
        ]
        if self.options.tlsc and not any(networks):
            raise UsageError(
                f"'{BICUBIC}' has no global statistics, so TLSC changes nothing",
                hint="leave out --tlsc",
            )
        # The dtype is chosen for the device in the options, even if `device` overrides it here.
        options = self.options.with_dtype([network.model for network in networks if network])
        options = dataclasses.replace(options, device=device or options.device)
        stages: list[Restorer | Bicubic] = []
        for loaded in networks:
            if loaded is None:
                stages.append(Bicubic(1))  # `to_scale` computes its scale
                continue
            own = options
            if len(self.models) > 1 and not has_global_statistics(loaded.network):
                own = dataclasses.replace(options, tlsc=None)  # for the other networks only
            stages.append(Restorer(loaded, own))
        spec = dataclasses.replace(self, options=options)
        return Pipeline(spec, tuple(stages)).to_scale(self.scale)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages that are ready to run. Between them, pictures are float in [0, 1], not rounded."""

    spec: PipelineSpec  # specification that it was built from, with the device of the networks
    stages: tuple[Restorer | Bicubic, ...]  # stages in order

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        return self.spec.scale

    @property
    def networks(self) -> list[Restorer]:
        """The stages that are networks."""
        return [stage for stage in self.stages if isinstance(stage, Restorer)]

    @property
    def options(self) -> RestorerOptions:
        """Options of every network."""
        return self.spec.options

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the pixels, except the device.

        An automatic tile size is left out: it depends on free memory, and results differ by less
        than a rounding step (in bfloat16 by about as much as from float32). A tile size that the
        user gave is included: without TLSC it determines the region of the statistics.
        """
        return {
            "stages": [
                {
                    "model": stage.name,
                    "scale": stage.scale,
                    "sha256": stage.sha256,
                    "tlsc": stage.tlsc_window,
                    "overlap": stage.overlap,
                }
                for stage in self.stages
            ],
            "precision": str(self.options.dtype).removeprefix("torch."),
        } | {
            field.name: getattr(self.options, field.name)
            for field in dataclasses.fields(self.options)
            if field.name not in ("device", "dtype", "tlsc", "overlap")  # effective values above
        }

    def __call__(
        self, image: Tensor, report: ProgressCallback = no_progress, depth: int | None = None
    ) -> Tensor:
        """Restore (1, 3, H, W), float in [0, 1] or integers.

        The result is (1, 3, scale * H, scale * W): uint8 or uint16 with a `depth` of 8 or 16 bits,
        else float, which can exceed [0, 1] slightly if it was resampled from another scale.
        `report` is called with (finished tiles, all tiles); each stage has an equal share of them.

        Raises:
            DeviceError: out of memory.
            PictureError: a network's output is not finite.
        """
        size = (image.shape[-2] * self.scale, image.shape[-1] * self.scale)
        fits = prod(stage.scale for stage in self.stages) == self.scale
        for n, stage in enumerate(self.stages):
            last = n == len(self.stages) - 1
            image = stage(image, self._share(report, n), depth if last and fits else None)
        return image if fits else resized(image, size, depth)

    def to_scale(self, scale: int) -> Pipeline:
        """Return the same networks for another scale, with that of a bicubic stage adapted."""
        networks = prod(network.scale for network in self.networks)
        bicubic = Bicubic(ceil(scale / networks))
        stages = tuple(bicubic if isinstance(one, Bicubic) else one for one in self.stages)
        return Pipeline(dataclasses.replace(self.spec, scale=scale), stages)

    def describe(self, where: str = "") -> list[str]:
        """Return a line per stage: weights, device (or `where`), options that decide the pixels."""
        ensemble = ", self-ensemble" * self.options.self_ensemble
        dtype = self.options.dtype or torch.float32
        half = "" if dtype == torch.float32 else f", {name_of(dtype)}"
        return [
            f"{stage.weights} (sha256 {stage.sha256[:12]}) on "
            f"{where or self.options.device}{half}, tlsc {stage.tlsc_window}, "
            f"overlap {stage.overlap}{ensemble}"
            if stage.weights
            else f"{stage.name} x{stage.scale}"
            for stage in self.stages
        ]

    @property
    def notes(self) -> list[str]:
        """Notes on options that make results differ from what one would expect."""
        return [
            f"note: {stage.name} takes its statistics from each tile alone, so the result differs "
            "from that of the whole picture"
            for stage in self.networks
            if stage.tiles_differ
        ]

    def _share(self, report: ProgressCallback, number: int) -> ProgressCallback:
        """Convert the progress of one stage to that of the pipeline."""
        count = len(self.stages)
        if count == 1:
            return report
        return lambda done, tiles: report(number * _PARTS + done * _PARTS // tiles, count * _PARTS)


def split_names(text: str) -> tuple[str, ...]:
    """Split `--model` into stages; raises `UsageError` for unknown names or bicubic twice."""
    names = tuple(name.strip() for name in text.split("+"))
    for name in names:
        if not name:
            raise UsageError(f"--model '{text}' lacks a name", hint="join names by one +")
        if name != BICUBIC and name not in MODELS:
            raise unknown_name("model", name, [*MODELS, BICUBIC])
    if names.count(BICUBIC) > 1:
        raise UsageError(f"--model '{text}' names {BICUBIC} more than once", hint="name it once")
    return names


def default_scale(names: Sequence[str]) -> int:
    """Return the scale of the models, or 4 if bicubic is the only stage that enlarges."""
    models = prod(MODELS[name].scale for name in names if name != BICUBIC)
    return max(_DEFAULT_SCALE, models) if BICUBIC in names else models


def _split_weights(names: Sequence[str], text: str | None) -> tuple[str | None, ...]:
    """Return the given weights of each stage; None for default weights and for bicubic."""
    models = [name for name in names if name != BICUBIC]
    if text is None:
        return (None,) * len(names)
    weights = text.split("+") if len(models) > 1 else [text]  # a path may contain a plus
    if not models:
        raise UsageError(f"{BICUBIC} takes no weights", hint="leave out --weights")
    if len(weights) != len(models):
        raise UsageError(
            f"--weights '{text}' names {format_count(len(weights), 'file')}, but there are "
            f"{len(models)} models: {', '.join(models)}",
            hint="join one file per model with +, in order, or leave out --weights",
        )
    given = iter(weights)
    return tuple(None if name == BICUBIC else next(given) for name in names)


def _load(weights: str | None, model: str | None) -> LoadedNetwork:
    """Load a network with verified weights, which restorers share and must not change.

    A file that has not changed since this process read it is not read again.
    """
    file = locate(weights, model)
    status = file.path.stat()
    key = (file.name, file.path, status.st_ino, status.st_mtime_ns, status.st_size)
    with _loading:
        loaded = _networks.pop(key, None)
        if loaded is None or model not in (None, loaded.model.name):
            loaded = load_network(file, expected_model=model)
        _networks[key] = loaded
        while len(_networks) > _MAX_CACHED_NETWORKS:
            del _networks[next(iter(_networks))]
    return loaded


_loading = threading.Lock()  # threads may each have a model of their own
_networks: dict[tuple[object, ...], LoadedNetwork] = {}  # recently used ones, in order of use
