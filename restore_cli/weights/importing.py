"""Converts checkpoints of the authors: they are recognised and renamed, and every key must fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_cli.errors import WeightsError
from restore_cli.files import sha256
from restore_cli.models.registry import MODELS, detect, get_model, published_formats
from restore_cli.models.spandrel_adapter import recognise
from restore_cli.models.spec import Model, PublishedFormat, StateDict
from restore_cli.version import __version__
from restore_cli.weights.checkpoint import (
    CheckpointHeader,
    check_finite,
    read_header,
    write_checkpoint,
)
from restore_cli.weights.foreign import Note, read_foreign
from restore_cli.weights.tfjs import graph_sha256, is_tfjs_package

_MAX_KEYS_SHOWN = 5  # keys of one kind that an error lists
_MAX_NETWORKS = 20  # in one file; more first parts of names are those of one unknown network


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import."""

    model: Model  # the recognised model
    config: Any  # its config, inferred from the shapes
    # the authors' format of the file; None if it has restore's names, or for a network that only
    # spandrel knows
    published: PublishedFormat | None
    sha256: str  # digest of the file
    tensors: dict[str, Tensor]  # tensors under restore's names, float32
    # the header of the written file; None if the size of the training patches is not known
    header: CheckpointHeader | None = None


def import_checkpoint(
    source: Path,
    target: Path,
    model: str | None = None,
    *,
    half: bool = False,
    note: Note = lambda _: None,
) -> Imported:
    """Convert a file of the authors, or one with restore's names, to a safetensors checkpoint.

    The source is any file that `weights.foreign.read_foreign` reads, and the target `.safetensors`.
    Without the name of a model, it is recognised. Tensors that have restore's names, or are of a
    network that only spandrel knows, keep their names. A file that restore wrote keeps its header.
    With `half`, tensors are stored as float16, which changes the output of `maxim` by at most 0.003
    of its range. Notes on what was taken of the file are passed to `note`.

    Raises:
        UsageError: no such model.
        WeightsError: unreadable, of an unknown or another model, or a key is missing, unexpected or
            of another shape; or a file of restore's that another checkpoint completes. Nothing is
            written.
    """
    state = _recognisable(source, read_foreign(source, note))
    check_finite(source, state)
    if (own := read_header(source)) is not None:
        found = _own(source, state, own, model)
    elif model is None and not published_formats(state) and detect(state) is None:
        found = _by_spandrel(source, state)
    else:
        found = convert(state, source, get_model(model) if model else None)
    found = dataclasses.replace(found, header=own or _header(source, found))
    tensors = _halved(source, found.tensors) if half else found.tensors
    write_checkpoint(target, tensors, found.header)
    return found


def _own(source: Path, state: StateDict, header: CheckpointHeader, wanted: str | None) -> Imported:
    """Check a file that restore wrote; its header states what its tensors do not."""
    if header.model not in MODELS:
        raise WeightsError(
            f"'{source}' is for model '{header.model}', which this version does not have",
            hint=f"known: {', '.join(sorted(MODELS))}",
        )
    if header.parts:
        raise WeightsError(
            f"'{source}' is restore's own file, which a listed checkpoint completes",
            hint=f"use it as it is: --weights {source}",
        )
    if wanted is not None:
        _check_model(source, get_model(header.model), get_model(wanted))
    found = _checked(source, get_model(header.model), None, state)
    if found.model.parse_config(header.config) != found.config:
        raise WeightsError(
            f"'{source}': the config in its header, {header.config}, does not fit its tensors",
            hint="fetch it again, or ask its author",
        )
    return found


def _header(source: Path, found: Imported) -> CheckpointHeader | None:
    """Return the header of a file of the authors; None if it does not tell how it was trained."""
    if found.published is None:
        return None
    return CheckpointHeader(
        model=found.model.name,
        config=dataclasses.asdict(found.config),
        train_size=found.published.train_size,
        provenance={
            "version": __version__,
            "imported_from": source.name,
            "format": found.published.name,
            "sha256": found.sha256,
        },
    )


def _recognisable(source: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove a common prefix of all names if the network is recognised only without it.

    Saved training modules have such prefixes: `net_g.`, `model.module.`, `generator.` Raises
    `WeightsError` if a network is recognised only without the names of other prefixes.
    """
    plain = _unwrapped(state)
    if _is_known(plain):
        return plain
    groups = _by_first_part(plain)
    many = len(groups) > _MAX_NETWORKS
    if known := [g for g, inner in groups.items() if not many and _is_known(_unwrapped(inner))]:
        counts = [f"{group or 'others'} ({len(inner)})" for group, inner in groups.items()]
        raise WeightsError(
            f"'{source}' is no known network as a whole: its names begin with {', '.join(counts)}",
            hint=f"save on its own, without this prefix, what begins with {' or '.join(known)}",
        )
    return state


def prefix_of(state: dict[str, Tensor]) -> str:
    """Return what all names begin with, e.g. `net.`, of a network that is known without it."""
    plain = _unwrapped(state)
    name, inner = next(iter(state)), next(iter(plain))
    return name.removesuffix(inner) if _is_known(plain) else ""


def _is_known(state: StateDict) -> bool:
    return bool(published_formats(state) or detect(state))


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove common prefixes until the network is recognised, or the names have none in common."""
    while not _is_known(state):
        groups = _by_first_part(state)
        if len(groups) != 1 or "" in groups:
            break
        (state,) = groups.values()
    return state


def _by_first_part(state: StateDict) -> dict[str, dict[str, Tensor]]:
    """Group tensors by the first part of their names, `net.`, which is removed; "" has no part."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        first, dot, rest = name.partition(".")
        groups.setdefault(first + dot if dot else "", {})[rest if dot else name] = tensor
    return groups


def _halved(source: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert floating-point tensors to float16; integers, such as counters, are kept."""
    stored = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    large = next((n for n, t in stored.items() if t.is_floating_point() and t.isinf().any()), None)
    if large is not None:
        raise WeightsError(
            f"'{source}' has values beyond float16 in {large}", hint="leave out --half"
        )
    return stored


def _by_spandrel(source: Path, state: dict[str, Tensor]) -> Imported:
    model, config, _ = recognise(state, str(source))
    # Copied, since safetensors refuses tensors that share memory.
    tensors = {name: tensor.clone() for name, tensor in state.items()}
    return Imported(model, config, None, _digest(source), tensors)


def convert(state: StateDict, source: Path, model: Model | None = None) -> Imported:
    """Convert a state dict of the authors' or restore's names, and check every key and shape.

    The names are without wrappers and prefixes; messages and the digest are those of `source`. With
    a model, weights of another one are refused. Raises `WeightsError` as `import_checkpoint` does.
    """
    candidates = published_formats(state)
    if not candidates and (own := detect(state)) is not None:
        _check_model(source, own, model)
        return _checked(source, own, None, state)
    if len(candidates) != 1:
        names = ", ".join(f"{one.name} ({published.name})" for one, published in candidates)
        raise WeightsError(
            f"'{source}' must fit exactly one published network, but fits {names or 'none'}",
            hint=f"its keys begin with: {', '.join(list(state)[:3])}",
        )
    ((found, published),) = candidates
    _check_model(source, found, model)
    if published.caution and model is None:
        raise WeightsError(
            f"'{source}' may be {published.name}; but {published.caution}",
            hint=f"add --model {found.name} if you are sure that it is {published.name}",
        )
    return _checked(source, found, published, published.convert(state))


def _check_model(source: Path, found: Model, wanted: Model | None) -> None:
    if wanted is not None and wanted.name != found.name:
        raise WeightsError(
            f"'{source}' holds weights of '{found.name}', not of '{wanted.name}'",
            hint=f"use --model {found.name}",
        )


def _checked(
    source: Path, model: Model, published: PublishedFormat | None, tensors: StateDict
) -> Imported:
    config = _config(source, model, tensors)
    _check(source, model, config, tensors)
    return Imported(
        model=model,
        config=config,
        published=published,
        sha256=_digest(source),
        # Copied, since safetensors refuses tensors that share memory.
        tensors={name: tensor.float().clone() for name, tensor in tensors.items()},
    )


def _digest(source: Path) -> str:
    """Return the sha256 of the file with the tensors, which is not the index of TensorFlow."""
    if is_tfjs_package(source):
        return graph_sha256()
    if source.is_file() and source.suffix != ".index":
        return sha256(source)
    prefix = source.with_suffix("") if source.suffix == ".index" else source
    return sha256(next(iter(sorted(prefix.parent.glob(f"{prefix.name}.data-*"))), source))


def _config(source: Path, model: Model, tensors: StateDict) -> Any:
    try:
        if model.detect(tensors):
            return model.infer_config(tensors)
    except (KeyError, IndexError, ZeroDivisionError, ValueError):
        pass
    # Too many keys are missing to infer the config: report the differences to the published one.
    config = next(iter(model.configs.values()))
    _check(source, model, config, tensors)
    raise WeightsError(f"'{source}' does not fit '{model.name}'")


def _check(source: Path, model: Model, config: Any, tensors: StateDict) -> None:
    """Raise a `WeightsError` that lists all differences in keys and shapes."""
    try:
        with torch.device("meta"):
            wanted = {name: t.shape for name, t in model.build(config).state_dict().items()}
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"'{source}' has an impossible config: {config}") from error
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems = {
        "missing": sorted(set(wanted) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(wanted)),
        "of another shape": shapes,
        "not floating-point": sorted(
            name for name, tensor in tensors.items() if not tensor.is_floating_point()
        ),
    }
    if any(problems.values()):
        text = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:_MAX_KEYS_SHOWN])}"
            f"{', …' * (len(names) > _MAX_KEYS_SHOWN)}"
            for kind, names in problems.items()
            if names
        )
        raise WeightsError(
            f"'{source}' does not fit '{model.name}': {text}",
            hint="check that the file is complete and of the published network",
        )
