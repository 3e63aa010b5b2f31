"""What `restore train` is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore_cli.inference.loading import LoadedNetwork
from restore_cli.training.recipe import TrainingRecipe
from restore_cli.training.state import STATE
from restore_cli.training.trainer import Execution
from restore_cli.weights.store import BEST, RESULT


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What to train, with which data, and where to write."""

    recipe: TrainingRecipe  # the training recipe
    # folders of sharp photos, or of pairs, or of both if the recipe mixes them
    data: Sequence[Path]
    run: Path  # output folder
    recipe_name: str = ""  # name of the recipe, for the model card
    pool: Path | None = None  # folder of a pool of degraded pictures; None for degrading on the fly
    # folders of held-out photos or pairs; their mean gain selects the best weights
    validation: Sequence[Path] = ()
    weights: LoadedNetwork | None = None  # loaded network to start from; None for random weights
    # `no` refuses a run that exists, `must` one that does not exist, `auto` neither
    resume: str = "no"
    # wall time after which training stops, without the time to fill a pool; the run can be resumed.
    # None for no limit.
    minutes: float | None = None
    device: str = "cpu"  # cpu, cuda or mps; in a group, the type of device
    execution: Execution = field(default_factory=Execution)  # precision, accumulation, compilation
    tensorboard: bool = False  # whether to write event files as well

    @property
    def state(self) -> Path:
        """The file with everything needed to resume."""
        return self.run / STATE

    @property
    def best(self) -> Path:
        """The file of the current phase's best averaged weights by validation, float32."""
        return self.run / BEST

    @property
    def result(self) -> Path:
        """The file of float16 weights for `restore image`."""
        return self.run / RESULT
