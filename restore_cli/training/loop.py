"""The training loop: one for every model and recipe, to be read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from restore_cli.degradations.recipe import load_degradation
from restore_cli.errors import PictureError, RestoreError, UsageError, WeightsError
from restore_cli.files import write_then_rename
from restore_cli.inference.loading import load_network
from restore_cli.models.layers import channels_last
from restore_cli.models.registry import get_config, get_model
from restore_cli.training.data import Batch, DegradedCrops
from restore_cli.training.interrupt import deferred_interrupt
from restore_cli.training.losses import LOSSES
from restore_cli.training.recipe import LossTerm, TrainingRecipe
from restore_cli.training.state import TrainingState, load_state, save_state
from restore_cli.training.validation import ValidationSet
from restore_cli.weights.store import locate


@dataclass(frozen=True, slots=True)
class Progress:
    """What a watcher is told after each step.

    `psnr` and `gain`, its difference to bicubic, are in dB, and None but where measured.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    psnr: float | None = None
    gain: float | None = None


def train(
    recipe: TrainingRecipe,
    photos: Path,
    run: Path,
    *,
    device: torch.device,
    validation: Path | None = None,
    weights: str | None = None,
    resume: bool = False,
    minutes: float | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train, or go on training, and return the file with the run's state.

    The state is saved every `recipe.save_every` steps and at the end, also after Ctrl-C. With the
    same photos, recipe and machine, a run that was stopped and resumed ends as an undisturbed one:
    batches are functions of (seed, step), and nothing else is random.

    Args:
        recipe: what to train and how.
        photos: folder of sharp photos.
        run: folder for `state.pt` and `metrics.jsonl`.
        device: where network and degradations run.
        validation: folder of other sharp photos, degraded by fixed seeds, or None.
        weights: checkpoint to begin with, as `weights.store.locate` takes it; None for fresh ones.
        resume: go on from `run/state.pt`.
        minutes: stop after so much wall time; the rest is for another `resume`.
        report: called after each step.

    Raises:
        UsageError: the run exists and `resume` is False, it does not and `resume` is True, or it
            was made with another recipe.
        PictureError: a photo cannot be read; the steps before it are saved.
        RestoreError: the loss is not finite; the state of the last good save is kept.
        KeyboardInterrupt: after Ctrl-C, when the step in progress is done and saved.
    """
    learner = Learner(recipe, device)
    data = DegradedCrops(photos, recipe, learner.degradation, device)
    held_out = ValidationSet(validation, learner.model.scale, device) if validation else None
    path = run / "state.pt"
    if path.exists():
        if not resume:
            raise UsageError(f"'{path}' exists", hint="add --resume, or choose another --output")
        learner.restore(path)
    elif resume:
        raise UsageError(f"nothing to resume: no '{path}'", hint="leave out --resume to begin")
    elif weights is not None:
        learner.start_from(weights)
    run.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(run / "metrics.jsonl", learner.step)

    deadline = time.monotonic() + 60 * minutes if minutes is not None else math.inf
    with deferred_interrupt() as interrupt:
        while learner.step < recipe.steps and time.monotonic() < deadline:
            try:
                batch = data.batch(learner.step)
            except PictureError:
                learner.save(path)
                raise
            terms = learner.learn(batch)
            score = None
            due = learner.step % recipe.validate_every == 0 or learner.step == recipe.steps
            if held_out and due:
                score = held_out.score(learner.ema.module)
            progress = Progress(
                step=learner.step,
                steps=recipe.steps,
                loss=sum(terms.values()),
                learning_rate=learning_rate(recipe, learner.step - 1),
                psnr=score.psnr if score else None,
                gain=score.gain if score else None,
            )
            log.add(progress, terms)
            report(progress)
            if learner.step % recipe.save_every == 0:
                learner.save(path)
            if interrupt.requested:
                break
        learner.save(path)
    return path


class Learner:
    """Network, average of its weights and optimiser, with the step they stand at."""

    def __init__(self, recipe: TrainingRecipe, device: torch.device) -> None:
        """Build everything from the recipe's seed.

        Raises:
            UsageError: unknown names, or patches of a size that the model does not take.
        """
        self.recipe = recipe
        self.model = get_model(recipe.model)
        self.degradation = load_degradation(recipe.degradation).at_scale(self.model.scale)
        if recipe.patch % self.model.size.multiple_of:
            raise UsageError(
                f"'{self.model.name}' takes patches of multiples of {self.model.size.multiple_of}, "
                f"the recipe's are {recipe.patch}"
            )
        torch.manual_seed(recipe.seed)
        network = self.model.build(get_config(self.model, recipe.config))
        self.network = channels_last(network.to(device))
        self.ema = AveragedModel(self.network, multi_avg_fn=averaging(recipe.ema))
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=recipe.learning_rate, betas=recipe.betas
        )
        self.step = 0
        self._before = 0.0  # seconds spent up to `_since`
        self._since = time.monotonic()

    def learn(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the weighted loss terms.

        Raises:
            RestoreError: a term is not finite; nothing was changed.
        """
        # Networks may draw in training (moadg drops routes): a function of the step, like batches.
        torch.manual_seed(
            int(np.random.SeedSequence([self.recipe.seed, self.step]).generate_state(1)[0])
        )
        terms = losses(self.network, self.recipe.losses, batch)
        bad = [name for name, term in terms.items() if not torch.isfinite(term)]
        if bad:
            raise RestoreError(
                f"loss is not finite at step {self.step}: {', '.join(bad)}",
                hint="the last saved state is kept; lower the learning rate and resume",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.ema.update_parameters(self.network)
        self.step += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def start_from(self, weights: str) -> None:
        """Take the weights of a checkpoint, of the same model and config.

        Raises:
            WeightsError: not to be had, or of another model or config.
        """
        loaded = load_network(locate(weights, self.recipe.model), self.recipe.model)
        if loaded.config != get_config(self.model, self.recipe.config):
            raise WeightsError(
                f"'{weights}' is not of config '{self.recipe.config}' of '{self.recipe.model}'"
            )
        self.network.load_state_dict(loaded.network.state_dict())
        self.ema.module.load_state_dict(loaded.network.state_dict())

    def save(self, path: Path) -> None:
        """Write everything that `restore` needs, atomically."""
        state = TrainingState(
            step=self.step,
            network=self.network.state_dict(),
            ema=self.ema.state_dict(),
            optimizer=self.optimizer.state_dict(),
            recipe=self.recipe.model_dump(mode="json"),
            seconds=self._before + time.monotonic() - self._since,
        )
        save_state(state, path)

    def restore(self, path: Path) -> None:
        """Go back to a saved step.

        Raises:
            UsageError: the state is of another recipe.
        """
        state = load_state(path, self.recipe.model_dump(mode="json"))
        self.network.load_state_dict(state.network)
        self.ema.load_state_dict(state.ema)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self._before = state.step, state.seconds
        self._since = time.monotonic()


def averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average that forgets the first, untrained weights quickly.

    With a constant 0.998, 60 % of the average was still the initial weights after 250 steps.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, new in zip(averaged, current, strict=True):
            mean.lerp_(new, 1 - kept)

    return update


def losses(network: nn.Module, wanted: list[LossTerm], batch: Batch) -> dict[str, Tensor]:
    """Weighted terms by name, e.g. `restored.l1`.

    Raises:
        UsageError: a term names an output that the network does not have.
    """
    degraded = batch.degraded.contiguous(memory_format=torch.channels_last)
    outputs: dict[str, Tensor] = network.outputs(degraded)  # type: ignore[operator]
    terms = {}
    for term in wanted:
        if term.output not in outputs:
            raise UsageError(
                f"the recipe's loss names output '{term.output}'",
                hint=f"this network has: {', '.join(sorted(outputs))}",
            )
        value = LOSSES[term.loss](outputs[term.output], batch.targets[term.target])
        terms[f"{term.output}.{term.loss}"] = term.weight * value
    return terms


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """Linear warm-up, constant, then a half cosine over the last `decay` steps.

    The constant part does not depend on `steps`, so a run can be prolonged or cut short.
    """
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    left = max(recipe.steps - step, 0) / max(recipe.decay, 1)
    fraction = (1 - math.cos(math.pi * min(left, 1.0))) / 2
    return recipe.learning_rate_end + (recipe.learning_rate - recipe.learning_rate_end) * fraction


class MetricsLog:
    """`metrics.jsonl`: one line per step; on resuming, lines after the saved step are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        kept = path.read_text("utf-8").splitlines() if path.exists() and first else []
        with write_then_rename(path) as temporary:
            whole = [line for line in kept if _step(line) <= first]
            temporary.write_text("".join(line + "\n" for line in whole), "utf-8")

    def add(self, progress: Progress, terms: dict[str, float]) -> None:
        line: dict[str, Any] = {"step": progress.step, "loss": round(progress.loss, 6)}
        line |= {name: round(term, 6) for name, term in terms.items()}
        line["learning_rate"] = progress.learning_rate
        if progress.psnr is not None:
            line |= {"psnr": progress.psnr, "gain": progress.gain}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _step(line: str) -> float:
    """Step of a line; infinite for one that was cut off by a crash."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
