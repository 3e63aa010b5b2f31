"""Loads a checkpoint file as a network that is ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from restore_cli.errors import WeightsError
from restore_cli.formatting import format_list
from restore_cli.models.registry import MODELS, detect, get_model, published_formats
from restore_cli.models.spandrel_adapter import recognise
from restore_cli.models.spec import Model, Size, Tiling
from restore_cli.weights.checkpoint import CheckpointFile, CheckpointHeader, name_in_network
from restore_cli.weights.importing import prefix_of
from restore_cli.weights.manifest import Checkpoint, checkpoint_of
from restore_cli.weights.store import WeightsFile, locate, read


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network with everything the restorer must know about it."""

    model: Model  # its registry entry
    config: Any  # its config
    network: nn.Module  # the network, float32, in eval mode
    file: WeightsFile  # the file of its weights
    train_size: Size | None  # height, width of training patches, or None if unknown
    tlsc_base: Size | None  # window of local statistics, or None if unknown
    tlsc: bool  # whether statistics are local by default
    overlap: int  # default overlap of tiles, input pixels
    header: CheckpointHeader | None = None  # metadata of the file; None if another program wrote it

    @property
    def imported(self) -> bool:
        """Whether the weights are the authors' own, imported or loaded by spandrel."""
        if self.header is None:
            return self.model.name not in MODELS
        return "imported_from" in self.header.provenance

    @property
    def recipe(self) -> str:
        """Name of the recipe that the weights were trained with, or ""."""
        return str(self.header.provenance.get("recipe_name", "")) if self.header else ""


def load_network(file: WeightsFile, expected_model: str | None = None) -> LoadedNetwork:
    """Read weights, verifying them, and build their network; every key must match.

    The config comes from the file's header, or is inferred from the shapes if there is no header.
    Header, shapes and manifest must agree. Raises `WeightsError` if they do not, or if the file
    cannot be read, or belongs to no model or to another one than `expected_model`.
    """
    content = read(file)
    file, header = dataclasses.replace(file, sha256=content.sha256), content.header
    if header and header.model not in MODELS:
        raise WeightsError(
            f"'{file.name}' is for model '{header.model}', which this version does not have",
            hint=f"known: {', '.join(sorted(MODELS))}",
        )
    state = full_state_dict(content, file.name)
    model = get_model(header.model) if header else detect(state)
    if model is None:
        _check_own_names(file, state)
        return _load_with_spandrel(file, state, expected_model)
    if expected_model is not None and model.name != expected_model:
        raise _wrong_model(file, model, expected_model, f"use --model {model.name}")
    if whole := [name for name, tensor in state.items() if not tensor.is_floating_point()]:
        raise WeightsError(
            f"'{file.name}' has values that are not floating-point in {format_list(whole, 5)}",
            hint="quantised weights cannot be used; convert them to float32 first",
        )
    config = _agreed_config(file, model, state, header.config if header else None)
    try:
        with _Building(sum(tensor.numel() for tensor in state.values())):
            network = model.build(config)
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = shorten(str(error), 300, placeholder=" ...")  # torch lists every key on a line
        raise WeightsError(
            f"'{file.name}' does not fit '{model.name}': {reason}",
            hint="check that the file is complete and of this network",
        ) from error
    listed = file.checkpoint
    train_size = listed.train_size if listed else header.train_size if header else None
    tlsc_base = _tlsc_base(listed or header, train_size)
    return LoadedNetwork(
        model=model,
        config=config,
        network=network.eval(),
        file=file,
        train_size=train_size,
        tlsc_base=tlsc_base,
        tlsc=_tlsc(listed, model, train_size),
        overlap=listed.overlap if listed else _overlap(model, tlsc_base, header),
        header=header,
    )


class _Building(TorchFunctionMode):
    """Builds a network without random weights, and refuses one much larger than its file.

    Drawing random weights takes 0.25 of the 1.05 s in which `maxim-mscam` is loaded. A config that
    is inferred from the shapes of a small hostile file can mean a network of many gigabytes.
    (Building it on the meta device takes 1.3 s, to import torch._dynamo.)
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self._left = 4 * values + 10_000_000

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the values of a new tensor before it is allocated, and leave them as they are."""
        kwargs = kwargs or {}
        if func in (nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_):
            return args[0] if args else kwargs["tensor"]
        if func in (torch.empty, torch.zeros, torch.ones, torch.full):
            self._left -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if self._left < 0:
                raise ValueError("its shapes are those of a much larger network")
        return func(*args, **kwargs)


def full_state_dict(content: CheckpointFile, name: str) -> dict[str, Tensor]:
    """Return a file's tensors, with those of its parts that are stored in another checkpoint.

    Errors name the file by `name`. Raises `WeightsError` if this version does not list such a
    checkpoint, or it is not available.
    """
    state: dict[str, Tensor] = {}
    known: dict[str, dict[str, Tensor]] = {}  # a hostile header may name one a thousand times
    for module, digest in (content.header.parts if content.header else {}).items():
        listed = checkpoint_of(digest)
        if listed is None:
            what = f"its part '{module}'" if module else "the layers that it does not contain"
            raise WeightsError(
                f"'{name}' needs the checkpoint with sha256 {digest[:12]} for {what}, but this "
                "version does not list it",
                hint="see `restore weights list` for the listed checkpoints",
            )
        if digest not in known:
            known[digest] = full_state_dict(read(locate(listed.name, None)), listed.name)
        state |= {name_in_network(module, key): t for key, t in known[digest].items()}
    return state | content.tensors


def _check_own_names(file: WeightsFile, state: dict[str, Any]) -> None:
    """Raise a `WeightsError` for a network that is known after an import."""
    what = [f"{one.name} with its authors' parameter names" for _, one in published_formats(state)]
    if prefix := prefix_of(state):
        what.append(f"a known network whose parameter names begin with '{prefix}'")
    if what:
        raise WeightsError(
            f"'{file.name}' is {what[0]}",
            hint=f"convert it: restore weights import {file.name} -o NAME.safetensors",
        )


def _load_with_spandrel(
    file: WeightsFile, state: dict[str, Any], expected_model: str | None
) -> LoadedNetwork:
    model, config, network = recognise(state, file.name)
    if expected_model is not None and model.name != expected_model:
        raise _wrong_model(file, model, expected_model, "leave out --model")
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


def _wrong_model(file: WeightsFile, model: Model, expected: str, hint: str) -> WeightsError:
    return WeightsError(
        f"'{file.name}' contains weights of '{model.name}', not of '{expected}'", hint=hint
    )


def _agreed_config(
    file: WeightsFile, model: Model, state: dict[str, Any], stored: dict[str, object] | None
) -> Any:
    if not model.detect(state):
        raise WeightsError(
            f"'{file.name}' is marked as '{model.name}', but its parameter names do not match",
            hint="download or convert the file again",
        )
    try:
        config = model.infer_config(state)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise WeightsError(f"'{file.name}' is an incomplete '{model.name}': {error!r}") from error
    listed = file.checkpoint.config if file.checkpoint else None
    configs: dict[str, Mapping[str, object] | None] = {"header": stored, "manifest": listed}
    for where, values in configs.items():
        try:
            same = values is None or model.parse_config(values) == config
        except WeightsError as error:
            raise WeightsError(
                f"'{file.name}': in the {where}, {error}", hint=error.hint
            ) from error
        if not same:
            raise WeightsError(
                f"'{file.name}': the config in the {where}, {values}, does not match the shapes of "
                f"the weights, {dataclasses.asdict(config)}",
                hint="download or convert the file again",
            )
    return config


def _tlsc_base(
    stated: Checkpoint | CheckpointHeader | None, train_size: Size | None
) -> Size | None:
    """Return the stated window, or 1.5 x the training size, as published for MPRNet and NAFNet."""
    if stated and stated.tlsc_base:
        return stated.tlsc_base
    return (train_size[0] * 3 // 2, train_size[1] * 3 // 2) if train_size else None


def _overlap(model: Model, base: Size | None, header: CheckpointHeader | None) -> int:
    """Return the model's overlap, which for some grows with the window, or a larger stated one.

    Measured on `mprnet` lite with an overlap of 64 px: 4 % of the values of a tiled picture differ
    by more than 1/255 with a window of 384 px, 0.005 % with a window of 96 px.
    """
    grows = base is not None and model.overlap_grows
    own = model.overlap * max(96, *base) // 96 if base and grows else model.overlap
    return max(own, header.overlap or 0) if header else own


def _tlsc(listed: Checkpoint | None, model: Model, train_size: Size | None) -> bool:
    """Return the listed setting; else on, unless the model discourages local statistics."""
    if listed:
        return listed.tlsc_base is not None
    return train_size is not None and model.tiling is Tiling.SUPPORTED
