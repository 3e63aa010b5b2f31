"""A training recipe: everything that determines the weights, except data and hardware."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel, model_validator

from restore_cli import toml_file
from restore_cli.errors import RecipeError
from restore_cli.toml_file import Record as _Record
from restore_cli.training.losses import LOSSES

FOLDER = Path(__file__).parent.parent / "recipes" / "train"
ABLATIONS = FOLDER.parent / "ablations.toml"
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]  # 10**12 filled the memory before the first step
Side = Annotated[int, Field(ge=16)]
Name = Annotated[str, Field(min_length=1)]

Target = Literal[
    "reference", "reference_small", "reference_half", "reference_quarter", "degraded_large"
]

if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(LOSSES)]


class Record(_Record):
    """A record whose fields are described by the texts below them, also in the JSON Schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class LossTerm(Record):
    """weight * loss(output, target)."""

    output: Name
    """Name of the network's output."""
    target: Target
    """`reference` is the sharp picture at full size; `reference_small` the same at the size of the
    input, by bicubic downscaling; `reference_half` and `reference_quarter` every second and fourth
    of its pixels; `degraded_large` the blurry picture before downscaling."""
    loss: LossName
    """Name of the loss."""
    weight: Positive = 1.0
    """Weight of this term in the sum."""

    @property
    def name(self) -> str:
        """The name in logs."""
        return f"{self.output}.{self.loss}"


class CosineLR(Record):
    """Constant, then half a cosine over the last `steps` steps (None: all) down to `end`.

    The constant part does not depend on the length of the phase, so a run can be extended.
    """

    kind: Literal["cosine"] = "cosine"
    end: NotNegative = 0.0
    steps: Count | None = None


class StepLR(Record):
    """Multiplied by `factor` every `every` steps, but at least `end`."""

    kind: Literal["step"]
    every: Count
    factor: Annotated[float, Field(gt=0, lt=1)]
    end: NotNegative = 0.0


class PolynomialLR(Record):
    """end + (rate - end) * (1 - step / steps) ** power."""

    kind: Literal["polynomial"]
    power: Positive
    end: NotNegative = 0.0


class ConstantLR(Record):
    """The same rate throughout."""

    kind: Literal["constant"]


Schedule = Annotated[CosineLR | StepLR | PolynomialLR | ConstantLR, Field(discriminator="kind")]


Beta = Annotated[float, Field(ge=0, lt=1)]


class Adam(Record):
    """Adam (Kingma and Ba, arXiv:1412.6980), without weight decay."""

    kind: Literal["adam"] = "adam"
    betas: tuple[Beta, Beta] = (0.9, 0.999)


class AdamW(Record):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    kind: Literal["adamw"]
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: NotNegative = 1e-2


class Sgd(Record):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class ProgressiveSize(Record):
    """Patch and batch size from some step of a phase on (progressive training)."""

    step: Count
    patch: Side
    batch: BatchSize


class Phase(Record):
    """A part of the training with its own losses, parameters and schedule."""

    name: Name
    """Name in logs."""
    steps: Count
    """Optimiser steps."""
    batch: BatchSize
    """Patches per step, over all processes and accumulated parts."""
    patch: Side
    """Side of a degraded patch, pixels."""
    progressive: list[ProgressiveSize] = []
    """Other sizes from given steps on, in order."""
    learning_rate: Positive
    """Learning rate after the warm-up."""
    rate_scales: dict[Name, Positive] = {}
    """Factors of the learning rate by glob pattern of the parameters; the first pattern that
    matches decides."""
    schedule: Schedule = CosineLR()
    """Schedule of the learning rate after the warm-up."""
    warm_up: Annotated[int, Field(ge=0)] = 0
    """Steps in which the learning rate grows linearly."""
    clip: Positive | None = None
    """Largest norm of the gradient, or None."""
    trained: Annotated[list[Name], Field(min_length=1)] = ["*"]
    """Glob patterns of the trained parameters; the others are frozen."""
    begin: Literal["best", "average", "last"] = "best"
    """Initial weights, from the previous phase: `best` is its best average by validation (the last
    average without validation), `average` its last average, `last` its last weights."""
    keep_optimizer: bool = False
    """Keep the optimiser's state and `rate_scales` of the previous phase; needs begin = "last"."""
    losses: Annotated[list[LossTerm], Field(min_length=1)]
    """Loss terms, which are summed. Validation scores the output of the first one."""

    @model_validator(mode="after")
    def _consistent(self) -> Phase:
        names = [term.name for term in self.losses]
        if len(set(names)) < len(names):
            raise ValueError("two losses have the same output and the same kind")
        if self.losses[0].target not in {"reference", "reference_small"}:
            raise ValueError("the target of the first loss must be reference or reference_small")
        steps = [0, *(larger.step for larger in self.progressive)]
        if sorted(set(steps)) != steps:
            raise ValueError("progressive sizes must be sorted by step, each step once")
        if self.keep_optimizer and self.begin != "last":
            raise ValueError('keep_optimizer needs begin = "last"')
        if self.keep_optimizer and self.rate_scales:
            raise ValueError("keep_optimizer also keeps the rate_scales of the previous phase")
        return self

    def sizes(self, step: int) -> tuple[int, int]:
        """Return patch (side of the degraded crop, pixels) and batch at a step of this phase."""
        reached = [larger for larger in self.progressive if larger.step <= step]
        return (reached[-1].patch, reached[-1].batch) if reached else (self.patch, self.batch)

    @property
    def patches(self) -> set[int]:
        """Every patch size of the phase."""
        return {self.patch, *(larger.patch for larger in self.progressive)}


class MixturePart(Record):
    """One of several kinds of data in every batch."""

    data: Literal["photos", "pairs"]
    """Kind of the data folders that this part uses: sharp photos or pairs."""
    probability: Annotated[float, Field(gt=0, le=1)]
    """Fraction of the patches from this part, exact in every hundred; a multiple of 0.01."""
    degradation: Name | None = None
    """Name of the degradation of photos; None for the recipe's own."""

    @model_validator(mode="after")
    def _consistent(self) -> MixturePart:
        if self.data == "pairs" and self.degradation is not None:
            raise ValueError("a part with pairs cannot have a degradation")
        if abs(100 * self.probability - self.hundredths) > 1e-6:
            raise ValueError("a probability must be a multiple of 0.01")
        return self

    @property
    def hundredths(self) -> int:
        """The probability in hundredths."""
        return round(100 * self.probability)


class PoolSettings(Record):
    """What `--pool` is filled with before training."""

    size: Count = 2000
    """Number of items, divided by the probabilities of a mixture. Pairs are whole pictures, with at
    most one item each (two, one of them mirrored, if outputs of a frozen part are stored)."""
    side: Side | None = None
    """Side of a degraded picture cropped from a photo, pixels; patches are cropped from it at
    random. None for 128, or the largest patch."""
    reuse: Count | None = None
    """Average number of patches from an item of photos before it is replaced: every `reuse` patches
    a new item replaces the oldest one. None for no replacement."""


class TrainingRecipe(Record):
    """Sizes in pixels of the degraded input; counts in optimiser steps."""

    description: str = ""
    """What it trains, and how, in one line."""
    model: str | None = None
    """Name of the model; None for the model of the weights that are fine-tuned."""
    config: str | dict[str, int | bool] | None = None
    """Name of one of its configs, or its fields; None for the config of those weights."""
    parts: dict[str, Name] = {}
    """Modules that are initialised from a checkpoint, with the checkpoint's name; "" is the whole
    network."""
    degradation: str = "shake-mixed"
    """Name of the degradation recipe for sharp photos."""
    validation_degradation: str = "shake"
    """Name of the degradation recipe for sharp validation photos."""
    mixture: list[MixturePart] = []
    """Kinds of data in every batch; empty for a single kind."""
    pool: PoolSettings = PoolSettings()
    """What `--pool` is filled with."""
    gopro_blur: Literal["blur_gamma", "blur"] = "blur_gamma"
    """Which of GoPro's blurry frames to use in pairs."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random numbers."""
    initialisation: Literal["torch", "he"] = "torch"
    """Initial weights of a network: `torch` for the defaults of torch and of the network, `he` for
    `initialisation.initialise_he`."""
    margin: Annotated[int, Field(ge=0)] = 8
    """Pixels around a patch that are cropped after degrading, so that its border is computed from
    real neighbours."""
    halve: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Probability that a photo is downscaled by 2 first, which hides its JPEG artefacts."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights; 0 for the weights themselves."""
    save_every: Count = 100
    """Steps between saved states, at most."""
    save_minutes: Positive = 2.0
    """Minutes between saved states, at most."""
    validate_every: Count = 500
    """Steps between validations."""
    optimizer: Annotated[Adam | AdamW | Sgd, Field(discriminator="kind")] = Adam()
    """Optimiser of all phases."""
    phases: Annotated[list[Phase], Field(min_length=1)]
    """Phases in order."""

    @model_validator(mode="after")
    def _named(self) -> TrainingRecipe:
        if (self.model is None) != (self.config is None):
            raise ValueError("model and config must be given together")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError("two phases have the same name")
        if self.phases[0].keep_optimizer:
            raise ValueError("the first phase has no optimizer to keep")
        if self.mixture and sum(part.hundredths for part in self.mixture) != 100:
            raise ValueError("the probabilities of a mixture must add up to 1")
        if self.pool_side < max(self.patches):
            raise ValueError("a patch is larger than the pool's side")
        return self

    @property
    def steps(self) -> int:
        """Number of steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def steps_from(self, step: int, phase: int, phase_step: int) -> int:
        """Count the steps of a whole run; finished phases count with the steps that they took."""
        return step - phase_step + sum(one.steps for one in self.phases[phase:])

    @property
    def patches(self) -> set[int]:
        """Every patch size of all phases."""
        return {side for phase in self.phases for side in phase.patches}

    @property
    def pool_side(self) -> int:
        """Side of a degraded picture in the pool."""
        return self.pool.side or max(128, *self.patches)

    def content(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return self.model_dump(mode="json")


class Ablation(Record):
    """A shipped recipe with a part changed or left out."""

    base: Name
    """Name of a shipped recipe."""
    config: str | dict[str, int | bool] | None = None
    """Config instead of the base's: a name, or the fields that differ from the published one."""
    phases: list[Name] = []
    """Names of the base's phases to keep; empty for all."""
    without: list[Name] = []
    """Names of loss terms to remove, e.g. `level0.mse`."""
    losses: list[LossTerm] = []
    """Losses of every phase instead of the base's; empty for the base's."""
    learning_rate: Positive | None = None
    """Learning rate of every phase instead of the base's."""

    def recipe(self) -> TrainingRecipe:
        """Complete the recipe; raises `RecipeError` if the base has no such phase or loss term."""
        base = load_recipe(self.base)
        phases = [p for p in base.phases if not self.phases or p.name in self.phases]
        named = {phase.name for phase in phases} | {t.name for p in phases for t in p.losses}
        unknown = sorted({*self.phases, *self.without} - named)
        if unknown:
            raise RecipeError(
                f"recipe '{self.base}' has no phase or loss named {', '.join(unknown)}"
            )
        changed = [
            phase.model_copy(
                update={
                    "losses": self.losses
                    or [t for t in phase.losses if t.name not in self.without],
                    "learning_rate": self.learning_rate or phase.learning_rate,
                    "keep_optimizer": phase.keep_optimizer and number > 0,
                }
            )
            for number, phase in enumerate(phases)
        ]
        values = base.content() | {"phases": [phase.model_dump() for phase in changed]}
        changes = {"config": self.config or base.config, "description": self.description}
        return TrainingRecipe.model_validate(values | changes)

    @property
    def description(self) -> str:
        """What it changes, in one line."""
        config = self.config or ""
        if isinstance(config, dict):
            config = ", ".join(f"{key} {value}" for key, value in config.items())
        changes = (
            f"config {config}" * bool(config),
            f"only {', '.join(self.phases)}" * bool(self.phases),
            f"without {', '.join(self.without)}" * bool(self.without),
            f"loss {', '.join(term.name for term in self.losses)}" * bool(self.losses),
            f"learning rate {self.learning_rate:g}" if self.learning_rate else "",
        )
        return f"{self.base}: {'; '.join(filter(None, changes))}"


class Ablations(RootModel[dict[str, Ablation]]):
    """All ablations, by the name that `restore train` takes."""


@cache
def ablations() -> dict[str, Ablation]:
    """Return the ablations that come with the package."""
    return toml_file.load(Ablations, str(ABLATIONS), FOLDER, "recipes").root


def load_recipe(name_or_path: str) -> TrainingRecipe:
    """Load a shipped recipe or ablation by name, or a recipe from a `.toml` file.

    Raises:
        UsageError: unknown name.
        RecipeError: unknown key, wrong type, value out of range.
    """
    if name_or_path in ablations():
        return ablations()[name_or_path].recipe()
    return toml_file.load(TrainingRecipe, name_or_path, FOLDER, "training recipe", [*ablations()])


def shipped_recipes() -> list[str]:
    """Name the recipes that come with the package, without the ablations."""
    return toml_file.names(FOLDER)


def learning_rate(phase: Phase, step: int) -> float:
    """Return the learning rate at a step of a phase: linear warm-up, then its schedule."""
    rate, schedule = phase.learning_rate, phase.schedule
    if step < phase.warm_up:
        return rate * (step + 1) / phase.warm_up
    past, length = step - phase.warm_up, max(phase.steps - phase.warm_up, 1)
    match schedule:
        case CosineLR():
            left = max(length - past, 0) / min(schedule.steps or length, length)
            fraction = (1 - math.cos(math.pi * min(left, 1.0))) / 2
            rate = schedule.end + (rate - schedule.end) * fraction
        case StepLR():
            rate = max(rate * float(schedule.factor ** (past // schedule.every)), schedule.end)
        case PolynomialLR():
            left = max(length - past, 0) / length
            rate = schedule.end + (rate - schedule.end) * float(left**schedule.power)
        case ConstantLR():
            pass
    return rate
