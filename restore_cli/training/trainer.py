"""The trainer: network, moving average, optimiser, and the current step."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.errors import RestoreError, UsageError, WeightsError, lookup
from restore_cli.formatting import first_line
from restore_cli.inference.loading import LoadedNetwork, full_state_dict
from restore_cli.inference.memory import memory_errors
from restore_cli.models.layers import memory_format
from restore_cli.models.registry import get_model
from restore_cli.models.spec import Model
from restore_cli.training.data import PREPARED, Batch
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.ema import ExponentialMovingAverage
from restore_cli.training.initialisation import initialise_he
from restore_cli.training.losses import LOSSES
from restore_cli.training.pretrained import load_parts, untouched
from restore_cli.training.recipe import Adam, AdamW, LossTerm, Phase, TrainingRecipe, learning_rate
from restore_cli.training.state import TrainingState, load_state, save_state
from restore_cli.weights.checkpoint import read_checkpoint


@dataclass(frozen=True, slots=True)
class Execution:
    """How a recipe is computed; it changes the result by rounding only."""

    # dtype of convolutions and matrix products; losses, statistics and weights are float32
    precision: torch.dtype = torch.float32
    accumulate: int = 1  # number of parts that a batch is split into (gradient accumulation)
    compile: bool = False  # whether the network is compiled with torch.compile


class Outputs(nn.Module):
    """Wraps `network.outputs` as `forward`, which DistributedDataParallel needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        image: Tensor,
        wanted: tuple[str, ...],
        prepared: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Map (B, 3, H, W), maybe with outputs of the frozen part, to wanted outputs by name."""
        given = (image, wanted, prepared) if prepared else (image, wanted)
        outputs: dict[str, Tensor] = self.network.outputs(*given)  # type: ignore[operator]
        return outputs


class Trainer:
    """Everything that changes during training."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        group: ProcessGroup,
        execution: Execution | None = None,
        *,
        pooled: bool = False,
    ) -> None:
        """Build everything from the recipe's seed.

        `pooled` says whether batches come from a pool, with the outputs of a frozen part.

        Raises:
            UsageError: a name is unknown, or the model does not accept a patch size.
            WeightsError: the weights of a part are not available or do not fit.
        """
        self.recipe, self.group = recipe, group
        self.execution, self.pooled = execution or Execution(), pooled
        self.model, config = model_and_config(recipe)
        torch.manual_seed(recipe.seed)
        network = _build(self.model, config)
        if recipe.initialisation == "he":
            initialise_he(network)
        load_parts(network, recipe)
        layout = memory_format(group.device)
        self.network = network.to(group.device, memory_format=layout)  # type: ignore[call-overload]
        self.scaler = torch.amp.GradScaler(
            group.device.type, enabled=self.execution.precision == torch.float16
        )
        self._check_patches()
        self.phase_index = self.phase_step = self.step = self.seen = 0
        self.best: dict[str, Any] | None = None
        self.facts: dict[str, Any] = {}
        self._norm = torch.zeros(())  # of the last gradient
        self._before = 0.0  # seconds spent up to `_since`
        self._since = time.monotonic()
        self.ema = ExponentialMovingAverage(self.network, recipe.ema)
        self._enter_phase()

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.recipe.phases[self.phase_index]

    @property
    def frozen(self) -> bool:
        """Whether the frozen part has its initial weights and keeps them in this phase."""
        return self.frozen_in(self.phase_index)

    @property
    def wanted(self) -> set[str]:
        """What the batches of this phase must contain: targets, and outputs of the frozen part."""
        targets: set[str] = {term.target for term in self.phase.losses}
        return targets | ({PREPARED} if self.pooled and self.frozen else set())

    @property
    def seconds(self) -> float:
        """Training time of the run so far, including the time before it was resumed."""
        return self._before + time.monotonic() - self._since

    def train_step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one optimiser step on the parts of one batch; return the weighted loss terms.

        Raises:
            RestoreError: a term is not finite, and nothing was changed; or the last gradient was
                not finite, and the weights are lost.
        """
        self.check_gradient()
        # Random numbers in networks (moadg drops routes) are a function of the step, like batches.
        seed = [self.recipe.seed, self.step, self.group.rank]
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        rate = learning_rate(self.phase, self.phase_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for batch in batches:
            terms = compute_losses(
                self._outputs, self.phase.losses, batch, self.execution.precision
            )
            names, values = list(terms), torch.stack(list(terms.values()))
            means = self.group.all_reduce_mean(values.detach()).tolist()
            for name, mean in zip(names, means, strict=True):
                sums[name] = sums.get(name, 0.0) + mean / len(batches)
            bad = [name for name, mean in zip(names, means, strict=True) if not isfinite(mean)]
            self._raise_if_any(bad)
            if not values.requires_grad:
                raise UsageError(
                    f"phase '{self.phase.name}' trains nothing that its losses depend on",
                    hint="change `trained` or the losses in the recipe",
                )
            self.scaler.scale(values.sum() / len(batches)).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        limit = self.phase.clip if self.phase.clip is not None else float("inf")
        trained = [p for p in self.network.parameters() if p.grad is not None]
        self._norm = nn.utils.clip_grad_norm_(trained, limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update(self.network)
        self.step, self.phase_step = self.step + 1, self.phase_step + 1
        self.seen += self.phase.sizes(self.phase_step - 1)[1]
        return sums

    def check_gradient(self) -> None:
        """Raise a `RestoreError` if the last gradient was not finite and the weights are lost.

        It is called one step late, as it synchronises with a GPU.
        """
        # In float16 the scaler skips such a step.
        if not self.scaler.is_enabled() and not isfinite(self._norm):
            self._raise_if_any(["gradient"])

    def _raise_if_any(self, bad: list[str]) -> None:
        if bad:
            raise RestoreError(
                f"NaN or infinity at step {self.step} in {', '.join(bad)}",
                hint="the last saved state is kept; lower the learning rate and resume",
            )

    def start_from(self, loaded: LoadedNetwork) -> None:
        """Start from a network's weights; raises `WeightsError` for another model or config."""
        for_weights(self.recipe, loaded)
        self._load_weights(loaded.network.state_dict())
        before = loaded.header.provenance.get("base") if loaded.header else None
        inherited = before.get("license") if isinstance(before, dict) else None
        self.facts["base"] = {
            "weights": Path(loaded.file.name).name,
            "sha256": loaded.file.sha256,
            "license": loaded.file.license or inherited or "unknown, ask the authors",
            "tlsc_base": loaded.tlsc_base and list(loaded.tlsc_base),
            "overlap": loaded.overlap,
        }

    def next_phase(self, best: Path) -> None:
        """Go to the next phase.

        `best` is the file of this phase's best weights, which exists if a validation was scored.
        Raises `WeightsError` if it is then missing or damaged.
        """
        self.phase_index, self.phase_step = self.phase_index + 1, 0
        if self.phase.begin != "last":
            found = self.phase.begin == "best" and self.best is not None
            first = found and self.group.rank == 0
            tensors = full_state_dict(read_checkpoint(best), str(best)) if first else None
            self._load_weights(tensors or self.ema.module.state_dict())
        self.best = None
        self._enter_phase()

    @property
    def steps(self) -> int:
        """Steps of the whole run; finished phases count with the steps that they took."""
        return self.recipe.steps_from(self.step, self.phase_index, self.phase_step)

    def state(self) -> TrainingState:
        """Return the state that `save` writes."""
        return TrainingState(
            phase=self.phase_index,
            phase_step=self.phase_step,
            step=self.step,
            seen=self.seen,
            network=self.network.state_dict(),
            ema=self.ema.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            best=self.best,
            recipe=self.recipe.content(),
            facts=self.facts,
            seconds=self.seconds,
        )

    def save(self, path: Path) -> None:
        """Write the state atomically, unless the weights are lost.

        Raises `SaveError` if the disk is full, and `RestoreError` if the last gradient was not
        finite.
        """
        self.check_gradient()
        if self.group.rank == 0:
            save_state(self.state(), path)

    def resume_from(self, path: Path) -> None:
        """Go back to a saved step.

        Raises `UsageError` if the state belongs to another recipe or to a config that has changed
        since, or is incomplete.
        """
        # Only the first process reads: other hosts may not have the folder.
        first = self.group.rank == 0
        state = self.group.broadcast(load_state(path, self.recipe.content()) if first else None)
        self.phase_index, self.phase_step = state.phase, state.phase_step
        self.step, self.seen, self.best = state.step, state.seen, state.best
        try:
            self.network.load_state_dict(state.network)
            self.ema.load_state_dict(state.ema)
            self._enter_phase()
            self.optimizer = self._new_optimizer()  # also if the phase keeps an earlier one
            self.optimizer.load_state_dict(state.optimizer)
            if state.scaler:
                self.scaler.load_state_dict(state.scaler)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(
                f"'{path}' does not fit this version's config '{self.recipe.config}' of "
                f"{self.model.name}, or is incomplete",
                hint="choose another --output folder, or use the version that started the run",
            ) from error
        self.facts = state.facts
        self._before, self._since = state.seconds, time.monotonic()

    def frozen_in(self, index: int) -> bool:
        """Whether no phase up to this one trains the model's frozen part."""
        part, names = self.model.frozen_part, dict(self.network.named_parameters())
        return part is not None and untouched(part.name, names, self.recipe.phases[: index + 1])

    def _check_patches(self) -> None:
        """Check that the network accepts the patch sizes of every phase."""
        part = self.model.frozen_part
        for index, phase in enumerate(self.recipe.phases):
            whole = self.model.size.multiple_of
            rest = part.multiple_of if part and self.frozen_in(index) else whole
            multiple = rest if self.pooled else whole
            wrong = sorted(side for side in phase.patches if side % multiple)
            if wrong:
                hint = (
                    f"add --pool DIR: with precomputed outputs of '{part.name}' it accepts them"
                    if part
                    else ""
                )
                fits = all(side % rest == 0 for side in phase.patches)
                raise UsageError(
                    f"'{self.model.name}' needs patches with sides that are multiples of "
                    f"{multiple}, but the recipe has {wrong[0]}",
                    hint=hint if fits else "",
                )

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        self.network.load_state_dict(weights)
        self.ema = ExponentialMovingAverage(self.network, self.recipe.ema)

    def _enter_phase(self) -> None:
        """Freeze parameters as the phase says, and create its optimiser unless it is kept."""
        freeze(self.network, self.phase)
        if not self.phase.keep_optimizer:
            self.optimizer = self._new_optimizer()
        outputs = self.group.wrap(Outputs(self.network))
        if self.execution.compile:
            outputs = torch.compile(outputs)  # type: ignore[assignment]
        self._outputs = outputs

    def _new_optimizer(self) -> torch.optim.Optimizer:
        kind, rate = self.recipe.optimizer, self.phase.learning_rate
        # The groups are those of the phase that began the optimiser.
        phases = self.recipe.phases[: self.phase_index + 1]
        began = next(phase for phase in reversed(phases) if not phase.keep_optimizer)
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            scales = (s for p, s in began.rate_scales.items() if fnmatchcase(name, p))
            groups.setdefault(next(scales, 1.0), []).append(parameter)
        parameters = [{"params": group, "scale": scale} for scale, group in groups.items()]
        if isinstance(kind, AdamW):
            decay = kind.weight_decay
            return torch.optim.AdamW(parameters, lr=rate, betas=kind.betas, weight_decay=decay)
        if isinstance(kind, Adam):
            return torch.optim.Adam(parameters, lr=rate, betas=kind.betas)
        return torch.optim.SGD(parameters, lr=rate, momentum=kind.momentum)


def model_and_config(recipe: TrainingRecipe) -> tuple[Model, Any]:
    """Return the model and config that a recipe trains.

    Raises:
        UsageError: a name is unknown, or the recipe fine-tunes and no weights were given.
        WeightsError: the config does not fit its model.
    """
    if recipe.model is None or recipe.config is None:
        raise UsageError(
            "this recipe fine-tunes: it takes model and config from weights",
            hint="add --weights NAME_OR_FILE",
        )
    model = get_model(recipe.model)
    if isinstance(recipe.config, str):
        return model, lookup(f"config of {model.name}", recipe.config, model.configs)
    return model, model.parse_config(recipe.config)


def _build(model: Model, config: Any) -> nn.Module:
    """Build a network; raises `UsageError` if its config is impossible or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters without values, which are refused
            network = model.build(config)
        empty = [name for name, one in network.named_parameters() if not one.numel()]
        reason = f"'{empty[0]}' would have no values" if empty else ""
    except (ValueError, ArithmeticError, RuntimeError, MemoryError, TypeError) as error:
        reason = first_line(error)
    if reason:
        raise UsageError(
            f"{model.name} cannot be built with this config: {reason}",
            hint=f"see `restore models info {model.name}`",
        )
    return network


def for_weights(recipe: TrainingRecipe, loaded: LoadedNetwork) -> TrainingRecipe:
    """Give the recipe the model and config of a loaded network, if it names none itself.

    Raises `WeightsError` if it names others.
    """
    if recipe.model is not None:
        if (loaded.model, loaded.config) != model_and_config(recipe):
            raise WeightsError(
                f"'{loaded.file.name}' has another model or config than the recipe",
                hint="recipe `finetune` takes model and config from the weights",
            )
        return recipe
    config = dataclasses.asdict(loaded.config)
    return recipe.model_copy(update={"model": loaded.model.name, "config": config})


def freeze(network: nn.Module, phase: Phase) -> None:
    """Freeze the parameters that a phase does not train; unmatched patterns raise `UsageError`."""
    named = dict(network.named_parameters())
    chosen: set[str] = set()
    for pattern in [*phase.trained, *phase.rate_scales]:
        matching = {name for name in named if fnmatchcase(name, pattern)}
        if not matching:
            raise UsageError(
                f"phase '{phase.name}' names '{pattern}', which matches no parameter",
                hint=f"parts of the network: {', '.join(sorted({n.split('.')[0] for n in named}))}",
            )
        chosen |= matching if pattern in phase.trained else set()
    for name, parameter in named.items():
        parameter.requires_grad_(name in chosen)


def compute_losses(
    outputs_of: Callable[..., dict[str, Tensor]],
    wanted: Sequence[LossTerm],
    batch: Batch,
    precision: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return weighted terms by name, e.g. `restored.l1`; the network in `precision`.

    Losses are computed in float32. `outputs_of` makes outputs by name of degraded pictures
    (B, 3, H, W), the wanted names, and the frozen part's outputs if the batch has them. Raises
    `UsageError` if the network lacks the output of a term, or it differs in size from its target.
    """
    degraded = batch.degraded
    degraded = degraded.contiguous(memory_format=memory_format(degraded.device))
    names = tuple(sorted({term.output for term in wanted}))
    with torch.autocast(
        degraded.device.type, precision, enabled=precision != torch.float32, cache_enabled=True
    ):
        given = (degraded, names, batch.prepared) if batch.prepared else (degraded, names)
        outputs = outputs_of(*given)
    terms = {}
    for term in wanted:
        if term.output not in outputs:
            raise UsageError(
                f"the recipe's loss names output '{term.output}', which this network does not have",
                hint=f"outputs of the recipe that it has: {', '.join(sorted(outputs)) or 'none'}",
            )
        output, target = outputs[term.output].float(), batch.targets[term.target]
        if output.shape != target.shape:
            raise UsageError(
                f"loss '{term.name}' compares output '{term.output}' of "
                f"{output.shape[-1]}x{output.shape[-2]} px with target '{term.target}' of "
                f"{target.shape[-1]}x{target.shape[-2]} px",
                hint="choose another target, or data and pool of the model's scale",
            )
        value = LOSSES[term.loss](output, target)
        terms[term.name] = term.weight * value
    return terms


def out_of_memory(trainer: Trainer) -> AbstractContextManager[None]:
    """Raise a `DeviceError` if the memory of the device is full in the block."""
    return memory_errors(
        lambda: f"out of memory on {trainer.group.device} at step {trainer.step}",
        "split each batch with --accumulate 2, or choose a smaller one in the recipe",
    )
