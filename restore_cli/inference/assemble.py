"""From names of models and weights to what restores pictures, one network or several in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from restore_cli.inference.cascade import BICUBIC, Bicubic, Cascade, Stage, bicubic_factor
from restore_cli.inference.loading import LoadedNetwork, load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.tlsc import has_global_statistics
from restore_cli.weights.store import locate


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What decides the pixels of one stage, for reports.

    Attributes:
        model: name.
        weights: name of the file; "" for bicubic.
        sha256: of the weights; "" for bicubic.
        parameters: of the network.
        tlsc: window of local statistics as "96x96", or "off".
        overlap: of tiles, input pixels; 0 for bicubic.
        scale: output pixels per input pixel.
        network: what was loaded; None for bicubic.
    """

    model: str
    weights: str
    sha256: str
    parameters: int
    tlsc: str
    overlap: int
    scale: int
    network: LoadedNetwork | None


@dataclass(frozen=True, slots=True)
class Line:
    """Stages made ready.

    Attributes:
        stage: to be called with pictures.
        stages: it is made of, in order.
        facts: of each stage in order.
        options: they were made with.
    """

    stage: Stage
    stages: tuple[Stage, ...]
    facts: tuple[StageFacts, ...]
    options: RestorerOptions

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


def assemble(
    names: Sequence[str],
    files: Sequence[str | None],
    options: RestorerOptions,
    scale: int | None = None,
    first: LoadedNetwork | None = None,
) -> Line:
    """Load what is named and put it in a row.

    Args:
        names: of models, or `bicubic`.
        files: weights of each, as `weights.store.locate` takes them.
        options: of every network.
        scale: of the whole, where a bicubic stage decides it.
        first: the only network, if it was loaded already.

    Raises:
        UsageError: unknown names, or options that do not fit a network.
        WeightsError: weights that are missing or do not fit.
        DeviceError: the device is not there.
    """
    stages: list[Stage] = []
    facts: list[StageFacts] = []
    for name, file in zip(names, files, strict=True):
        if name == BICUBIC:
            factor = bicubic_factor(names, scale)
            stages.append(Bicubic(factor))
            facts.append(StageFacts(name, "", "", 0, "off", 0, factor, None))
            continue
        loaded = first or load_network(locate(file, name), expected_model=name)
        own = options
        if len(names) > 1 and not has_global_statistics(loaded.network):
            own = dataclasses.replace(options, tlsc=None)  # meant for the others
        restorer = Restorer(loaded, own)
        stages.append(restorer)
        window = loaded.tlsc_base if restorer.tlsc else None
        facts.append(
            StageFacts(
                model=name,
                weights=loaded.file.name,
                sha256=loaded.file.sha256,
                parameters=sum(p.numel() for p in loaded.network.parameters()),
                tlsc="x".join(map(str, window)) if window else "off",
                overlap=restorer.overlap,
                scale=restorer.scale,
                network=loaded,
            )
        )
    stage = stages[0] if len(stages) == 1 else Cascade(stages)
    return Line(stage, tuple(stages), tuple(facts), options)
