"""From a verified file to a network that is ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from restore_cli.errors import WeightsError
from restore_cli.models.registry import MODELS, detect, get_model
from restore_cli.models.spandrel_adapter import recognise
from restore_cli.models.spec import Model, Tiling
from restore_cli.weights.checkpoint import CheckpointFile, Header
from restore_cli.weights.manifest import Checkpoint, checkpoint_of
from restore_cli.weights.store import WeightsFile, locate, read

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network with everything the restorer must know about it.

    Attributes:
        model: its registry entry.
        config: that it was built from.
        network: float32, in eval mode.
        file: where the weights came from.
        train_size: height, width of training patches, or None where nobody wrote it down.
        tlsc_base: window of local statistics, or None where nobody knows it.
        tlsc: whether statistics are local unless the user says otherwise.
        overlap: of tiles, input pixels.
        header: what the file says about itself; None for one that others wrote.
    """

    model: Model
    config: Any
    network: nn.Module
    file: WeightsFile
    train_size: Size | None
    tlsc_base: Size | None
    tlsc: bool
    overlap: int
    header: Header | None = None

    @property
    def imported(self) -> bool:
        """Whether the weights are the authors' own, imported or as spandrel reads them."""
        if self.header is None:
            return self.model.name not in MODELS
        return "imported_from" in self.header.provenance

    @property
    def recipe(self) -> str:
        """Name of the recipe that trained them, or ""."""
        return str(self.header.provenance.get("recipe_name", "")) if self.header else ""


def load_network(file: WeightsFile, expected_model: str | None = None) -> LoadedNetwork:
    """Read weights and build their network; every key must fit.

    The config comes from the file's header; where there is none it is inferred from the shapes.
    Header, shapes and manifest must agree.

    Args:
        file: of weights; verified as it is read.
        expected_model: the model the user asked for, or None for whatever the file is.

    Raises:
        WeightsError: unreadable, of another model, of no model, or in disagreement with itself.
    """
    content = read(file)
    file, header = dataclasses.replace(file, sha256=content.sha256), content.header
    if header and header.model not in MODELS:
        raise WeightsError(
            f"'{file.name}' is of model '{header.model}', which this version does not have",
            hint=f"known: {', '.join(sorted(MODELS))}",
        )
    state = complete(content, file.name)
    model = get_model(header.model) if header else detect(state)
    if model is None:
        _refuse_authors_own(file, state)
        return _of_the_zoo(file, state, expected_model)
    if expected_model is not None and model.name != expected_model:
        raise _other_model(file, model, expected_model, f"use --model {model.name}")
    config = _agreed_config(file, model, state, header.config if header else None)
    try:
        network = model.build(config)
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"'{file.name}' does not fit '{model.name}': {error}") from error
    listed = file.checkpoint
    train_size = listed.train_size if listed else header.train_size if header else None
    return LoadedNetwork(
        model=model,
        config=config,
        network=network.eval(),
        file=file,
        train_size=train_size,
        tlsc_base=_tlsc_base(listed, train_size),
        tlsc=_tlsc(listed, model, train_size),
        overlap=listed.overlap if listed else _overlap(model, _tlsc_base(listed, train_size)),
        header=header,
    )


def complete(content: CheckpointFile, name: str) -> dict[str, Tensor]:
    """A file's tensors, and those of its parts that it leaves to another checkpoint.

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises:
        WeightsError: a part that this version does not list, or that is not to be had.
    """
    state: dict[str, Tensor] = {}
    for module, digest in (content.header.parts if content.header else {}).items():
        listed = checkpoint_of(digest)
        if listed is None:
            raise WeightsError(
                f"'{name}' takes its part '{module}' from the checkpoint of sha256 "
                f"{digest[:12]}, which this version does not list",
                hint="`restore weights list` shows those that it does",
            )
        tensors = read(locate(listed.name, None)).tensors
        state |= {f"{module}.{key}": tensor for key, tensor in tensors.items()}
    return state | content.tensors


def _refuse_authors_own(file: WeightsFile, state: dict[str, Any]) -> None:
    for model in MODELS.values():
        for published in model.published:
            if published.recognises(state):
                raise WeightsError(
                    f"'{file.name}' is {published.name} under its authors' names",
                    hint=f"restore weights import {file.name} -o NAME.safetensors",
                )


def _of_the_zoo(
    file: WeightsFile, state: dict[str, Any], expected_model: str | None
) -> LoadedNetwork:
    """A network of others: what is not known of its training is left out."""
    model, config, network = recognise(state, file.name)
    if expected_model is not None and model.name != expected_model:
        raise _other_model(file, model, expected_model, "leave out --model")
    return LoadedNetwork(
        model=model,
        config=config,
        network=network,
        file=file,
        train_size=None,
        tlsc_base=None,
        tlsc=False,
        overlap=model.overlap,
    )


def _other_model(file: WeightsFile, model: Model, expected: str, hint: str) -> WeightsError:
    return WeightsError(
        f"'{file.name}' holds weights of '{model.name}', not of '{expected}'", hint=hint
    )


def _agreed_config(
    file: WeightsFile, model: Model, state: dict[str, Any], stored: dict[str, object] | None
) -> Any:
    if not model.detect(state):
        raise WeightsError(f"'{file.name}' says it is '{model.name}', but its keys are not")
    try:
        config = model.infer_config(state)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise WeightsError(f"'{file.name}' is an incomplete '{model.name}': {error!r}") from error
    listed = file.checkpoint.config if file.checkpoint else None
    claims: dict[str, Mapping[str, object] | None] = {"its header": stored, "the manifest": listed}
    for claimant, claimed in claims.items():
        if claimed is not None and model.config_from(claimed) != config:
            shapes = dataclasses.asdict(config)
            raise WeightsError(f"'{file.name}': {claimant} says {claimed}, its shapes {shapes}")
    return config


def _tlsc_base(listed: Checkpoint | None, train_size: Size | None) -> Size | None:
    """The listed window, else 1.5 times the training size, as published for MPRNet and NAFNet."""
    if listed and listed.tlsc_base:
        return listed.tlsc_base
    return (train_size[0] * 3 // 2, train_size[1] * 3 // 2) if train_size else None


def _overlap(model: Model, base: Size | None) -> int:
    """The model's; for some it grows with the window.

    Measured on `mprnet` lite: with a window of 384 px and an overlap of 64, 4 % of the values of a
    tiled picture are more than 1/255 off, with a window of 96 px 0.005 %.
    """
    if base is None or not model.overlap_grows:
        return model.overlap
    return model.overlap * max(96, *base) // 96


def _tlsc(listed: Checkpoint | None, model: Model, train_size: Size | None) -> bool:
    """As listed; for other files on, but where local statistics make another network of it."""
    if listed:
        return listed.tlsc_base is not None
    return train_size is not None and model.tiling is Tiling.SUPPORTED
