"""Exports a run as a checkpoint for `restore image`, with model card and manifest entry."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.files import write_then_rename
from restore_cli.inference.loading import LoadedNetwork, full_state_dict, load_network
from restore_cli.models.spec import Model
from restore_cli.training.pretrained import split_stored
from restore_cli.training.recipe import TrainingRecipe
from restore_cli.training.state import STATE, TrainingState, read_state
from restore_cli.training.trainer import model_and_config
from restore_cli.version import __version__
from restore_cli.weights.checkpoint import CheckpointHeader, read_checkpoint, write_checkpoint
from restore_cli.weights.manifest import checkpoint_of, parse_manifest
from restore_cli.weights.store import BEST, WeightsFile
from restore_cli.weights.user import check_derived_license, check_license, check_name

EMA_PREFIX = "module."  # prefix of the network's weights in `ema.ExponentialMovingAverage`


@dataclass(frozen=True, slots=True)
class Package:
    """A checkpoint ready for distribution."""

    loaded: LoadedNetwork  # the network with its weights
    license: str  # SPDX licence of the weights
    weights: Path  # `NAME.safetensors`, float16
    card: Path  # `README.md`, the model card of the Hub
    entry: Path  # `manifest.toml`, the lines for `weights_manifest.toml`


def ema_weights(state: TrainingState) -> dict[str, Tensor]:
    """Return the averaged weights of a state."""
    return {
        name.removeprefix(EMA_PREFIX): tensor
        for name, tensor in state.ema.items()
        if name.startswith(EMA_PREFIX)
    }


def write_ema_weights(state: TrainingState, target: Path) -> None:
    """Write the averaged weights of a state as float32, with config and provenance.

    Parts that are unchanged from a listed checkpoint are not stored; the file names its sha256.
    """
    _write(ema_weights(state), state, state.step, target)


def export_checkpoint(run: Path, target: Path) -> TrainingState:
    """Write a run's best averaged weights (without validation the last) as float16 safetensors.

    Returns:
        The state of the run, without a best score if the last weights were written.

    Raises:
        UsageError: the folder is not that of a run.
        WeightsError: the best weights are missing or damaged.
    """
    return _export(run, _state_of(run), target)


def _state_of(run: Path) -> TrainingState:
    path = run / STATE
    if not path.is_file():
        raise UsageError(
            f"'{run}' is not the folder of a training run: it has no '{path.name}'",
            hint="give the --output folder of `restore train`",
        )
    return read_state(path)


def _export(run: Path, state: TrainingState, target: Path) -> TrainingState:
    best = run / BEST
    tensors, step = ema_weights(state), state.step
    last = state.facts.get("last_score") or {}
    if state.best is not None and last:
        # A score at the end of the time does not select the best weights of the phase; and the
        # weights that training started from are the best only if others were scored.
        higher = last["step"] == state.step and last["psnr"] > state.best["psnr"]
        if higher or (last["step"] == 0 < state.step):
            state = state.model_copy(update={"best": None})
    if state.best is not None:
        found = read_checkpoint(best)
        # If the run was killed, the file may belong to a later validation than the state.
        provenance: dict[str, Any] = found.header.provenance if found.header else {}
        tensors = full_state_dict(found, str(best))
        step = int(provenance.get("steps", state.best["step"]))
    _write(tensors, state, step, target, torch.float16)
    return state


def package(run: Path, folder: Path, name: str, weights_license: str) -> Package:
    """Write weights, model card and manifest entry of a run to a folder.

    `name` is that of the checkpoint, `model-config.training`, and the licence is in SPDX. Raises
    `UsageError` if it or the name is not valid, or the folder `run` is not that of a run.
    """
    check_name(name)
    check_license(weights_license)
    state = _state_of(run)
    check_derived_license(state.facts, weights_license)
    weights = folder / f"{name}.safetensors"
    state = _export(run, state, weights)
    checkpoint = Package(
        loaded=load_network(WeightsFile(str(weights), weights)),
        license=weights_license,
        weights=weights,
        card=folder / "README.md",
        entry=folder / "manifest.toml",
    )
    with write_then_rename(checkpoint.card) as temporary:
        temporary.write_text(_card(checkpoint, state), "utf-8", "replace")
    write_entry(checkpoint, f"bundled:{weights.name}")
    return checkpoint


def write_entry(checkpoint: Package, source: str) -> None:
    """Write the `weights_manifest.toml` lines with that `source`, and check that they are valid."""
    loaded = checkpoint.loaded
    assert loaded.header is not None
    assert loaded.train_size is not None
    provenance: dict[str, Any] = loaded.header.provenance
    values: dict[str, Any] = {
        "model": loaded.model.name,
        "source": source,
        "sha256": loaded.file.sha256,
        "size": checkpoint.weights.stat().st_size,
        "license": checkpoint.license,
        "training_data": _data_line(provenance),
        "recipe": str(provenance.get("recipe_name") or "in the header of the file"),
        "train_size": list(loaded.train_size),
        "overlap": loaded.overlap,
    }
    if loaded.tlsc and loaded.tlsc_base:
        values["tlsc_base"] = list(loaded.tlsc_base)
    config = ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in dataclasses.asdict(loaded.config).items()
    )
    lines = [f"[{_quoted(checkpoint.weights.stem)}]", f"config = {{ {config} }}"]
    lines += [f"{key} = {_quoted(value)}" for key, value in values.items()]
    text = "\n".join(lines).replace("\x7f", "\\u007f") + "\n"
    parse_manifest(text)
    with write_then_rename(checkpoint.entry) as temporary:
        temporary.write_text(text, "utf-8")


def _quoted(value: Any) -> str:
    """Return a value as TOML, which has the escapes of JSON, but no surrogates."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _write(
    tensors: dict[str, Tensor],
    state: TrainingState,
    step: int,
    target: Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    recipe = TrainingRecipe.model_validate(state.recipe)
    own, parts = split_stored(tensors, recipe)
    model, config = model_and_config(recipe)
    phase = recipe.phases[state.phase]
    size, base = max(phase.patches), state.facts.get("base", {})
    # A smaller window than before is worse, whatever is learned: attentive-deblur gains 1.63 dB on
    # seven real frames with the 96 px of patches of 64 px (--tlsc-window 96), 1.79 with its own.
    window = tuple(max(side, size * 3 // 2) for side in base.get("tlsc_base") or ())
    header = CheckpointHeader(
        model=model.name,
        config=dataclasses.asdict(config),
        train_size=(size, size),
        tlsc_base=(window[0], window[1]) if window else None,
        overlap=base.get("overlap"),
        provenance={
            "version": __version__,
            "recipe": recipe.content(),
            "phase": phase.name,
            "steps": step,
            "hours": round(state.seconds / 3600, 2),
            "validation": state.best,
            **state.facts,
        },
        parts=parts,
    )
    write_checkpoint(target, {name: tensor.to(dtype) for name, tensor in own.items()}, header)


def _data_line(facts: dict[str, Any]) -> str:
    """Describe the training data, and the weights that training started from."""
    data, base = facts.get("data", {}), facts.get("base", {})
    if not data:
        return "not recorded"
    parts = [f"{part['probability']:.0%} {_kind_line(part)}" for part in data.get("parts", [])]
    line = ", ".join(parts) or _kind_line(data)
    if base:
        line += (
            f"; fine-tuned from {base['weights']} (sha256 {base['sha256'][:16]}, "
            f"licence {base['license']})"
        )
    return line


def _kind_line(data: dict[str, Any]) -> str:
    how = (
        f", degraded by recipe {data['degradation']}"
        if data["kind"] == "photos"
        else f", layout {data['layout']}"
    )
    return f"{data['count']} {data['kind']}{how}; listing sha256 {data['listing_sha256'][:16]}"


def _pool_line(state: TrainingState) -> str:
    pool = state.facts.get("pool")
    if not pool:
        return "none: patches were degraded on the fly"
    items = pool["items"] + pool.get("replaced", 0)
    at_a_time = f" at a time, {items:,} in all" if items > pool["items"] else ""
    return (
        f"{pool['items']:,} items{at_a_time}, {pool['bytes'] / 1e9:.1f} GB; {state.seen:,} patches "
        f"were cut from them, {state.seen / items:.1f} from each"
    )


def _scores(state: TrainingState, model: Model) -> str:
    """Describe the score that selected the weights, or the last one of a run without a best."""
    score, why = state.best, "to select the weights"
    if score is None:
        score, why = state.facts.get("last_score"), "when the run was stopped"
    if score is None:
        return "Not measured: train with `--validation`, or run `restore benchmark`."
    each = ", ".join(f"{name} {gain:+.2f} dB" for name, gain in score.get("gains", {}).items())
    return (
        f"{score['psnr']:.2f} dB PSNR, {score['gain']:+.2f} dB over "
        f"{'bicubic' if model.scale > 1 else 'the input'}{each and f' ({each})'}, "
        f"at step {score['step']}: measured on a "
        f"few held-out crops {why}; not a benchmark."
    )


def _parts_line(parts: dict[str, str]) -> str:
    lines = []
    for module, digest in parts.items():
        listed = checkpoint_of(digest)
        assert listed is not None  # parts of other checkpoints are stored
        lines.append(
            f"{module or 'all that was not trained'}: the same as in `{listed.name}` "
            f"({listed.license}), sha256 {digest[:16]}, and not stored in this file"
        )
    return "; ".join(lines) or "none: all weights are in this file"


def _card(checkpoint: Package, state: TrainingState) -> str:
    loaded, weights_license, name = checkpoint.loaded, checkpoint.license, checkpoint.weights.stem
    parts = loaded.header.parts if loaded.header else {}
    recipe = TrainingRecipe.model_validate(state.recipe)
    steps = recipe.steps_from(state.step, state.phase, state.phase_step)
    hardware = state.facts.get("hardware", {})
    parameters = sum(parameter.numel() for parameter in loaded.network.parameters())
    model = loaded.model
    phases = "\n".join(
        f"| {phase.name} | {phase.steps} | {phase.batch} x {phase.patch} px | "
        f"{phase.learning_rate:g}, {phase.schedule.kind}"
        + "".join(f", {scale:g} times for `{p}`" for p, scale in phase.rate_scales.items())
        + " | "
        + ", ".join(f"{t.weight:g} {t.loss}({t.output}, {t.target})" for t in phase.losses)
        + " |"
        for phase in recipe.phases
    )
    return f"""---
license: {weights_license.lower()}
library_name: restore-cli
pipeline_tag: image-to-image
tags: [deblurring{", super-resolution" if model.scale > 1 else ""}, {model.name}]
---
# {name}

| | |
|---|---|
| model | `{model.name}` ({model.task}), {parameters:,} parameters; {model.paper} |
| file | `{name}.safetensors`, float16, sha256 `{loaded.file.sha256}` |
| licence of the weights | {weights_license} |
| data | {_data_line(state.facts)} |
| parts of other checkpoints | {_parts_line(parts)} |
| pool | {_pool_line(state)} |
| seed, steps | {recipe.seed}, {state.step} of {steps} |
| hardware, time | {hardware.get("device", "not recorded")}, {hardware.get("processes", 1)} \
process(es), torch {hardware.get("torch", "?")}, {hardware.get("precision", "float32")}; \
{state.seconds / 3600:.2f} hours |

    restore image photo.png --weights {name}.safetensors

## Training

| phase | steps | batch | rate | losses |
|---|---|---|---|---|
{phases}

## Scores

{_scores(state, model)}

## Known failures

Not examined yet: restore a few pictures of your own, and describe the failures here.
"""
