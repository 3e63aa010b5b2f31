"""What the first process does besides training: validation, logs, plots, progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from restore_cli.errors import RestoreError
from restore_cli.files import remedy
from restore_cli.training.job import TrainJob
from restore_cli.training.package import write_ema_weights
from restore_cli.training.progress import (
    MetricsLog,
    Pace,
    Progress,
    TensorBoard,
    ValidationSheet,
    plot_curves,
)
from restore_cli.training.recipe import learning_rate
from restore_cli.training.state import SaveError
from restore_cli.training.trainer import Trainer
from restore_cli.training.validation import ValidationScore, ValidationSet


class Monitor:
    """Tasks of the first process besides training: validation, logs, plots, progress reports."""

    def __init__(
        self,
        job: TrainJob,
        trainer: Trainer,
        validation_set: ValidationSet | None,
        report: Callable[[Progress], None],
        note: Callable[[str], None],
    ) -> None:
        self.job, self.trainer, self.report, self.note = job, trainer, report, note
        self.validation_set = validation_set
        self.sheet: ValidationSheet | None = None
        if validation_set:
            self.sheet = ValidationSheet(
                job.run / "validation", validation_set, job.run / "validation.png"
            )
        self.pace = Pace(trainer.seen)
        try:
            self.log = MetricsLog(job.run / "metrics.jsonl", trainer.step)
        except OSError as error:
            raise SaveError(f"cannot write to '{job.run}': {error}", hint=remedy(error)) from error
        self.board = TensorBoard(job.run / "tensorboard", trainer.step) if job.tensorboard else None
        # Training may not improve the weights that it starts from.
        if "base" in trainer.facts and not trainer.step and (score := self._score(selects=True)):
            note(f"before the first step: {score.gain:+.2f} dB")

    def _score(self, *, selects: bool) -> ValidationScore | None:
        """Validate, and keep the weights if they are the best and this score `selects` them."""
        trainer = self.trainer
        if self.validation_set is None:
            return None
        network, frozen = trainer.ema.module, trainer.frozen
        score = self.validation_set.score(network, trainer.phase.losses[0], frozen=frozen)
        facts = {"step": trainer.step, **score.facts()}
        trainer.facts["last_score"] = facts
        if selects and (trainer.best is None or score.psnr > trainer.best["psnr"]):
            self._keep_best(facts)
        return score

    def after_step(
        self, terms: dict[str, float], seconds: float, waited: float, left: float
    ) -> None:
        """Validate if due, keep the best weights, log and report.

        `terms` are the weighted losses by name of a step of `seconds`, `waited` of them for data.
        When time is up (`left` < 0 seconds), an extra score is recorded but does not select the
        best weights: the point where a run is stopped must not change the next phase.
        """
        trainer = self.trainer
        phase, score = trainer.phase, None
        enlarged = trainer.model.scale > 1 and phase.losses[0].target == "reference"
        due = trainer.step % trainer.recipe.validate_every == 0
        due = due or trainer.phase_step == phase.steps
        if due or left < 0:
            score = self._score(selects=due)
        steps_per_second, patches_per_hour = self.pace.after_step(trainer.seen)
        pool = trainer.facts.get("pool", {})
        items = pool.get("items", 0) + pool.get("replaced", 0)
        progress = Progress(
            step=trainer.step,
            steps=trainer.steps,
            phase=phase.name,
            loss=sum(terms.values()),
            terms=terms,
            learning_rate=learning_rate(phase, trainer.phase_step - 1),
            seconds=seconds,
            waited=waited,
            steps_per_second=steps_per_second,
            patches_per_hour=patches_per_hour,
            pool=pool.get("items"),
            reuse=trainer.seen / items if items else None,
            score=score and score._replace(restored=[]),  # which would stay in memory
            seconds_left=left if math.isfinite(left) else None,
            baseline="bicubic" if enlarged else "the input",
        )
        try:
            self.log.add(progress)
            if self.board:
                self.board.add(progress)
            if score and self.sheet:
                self.sheet.add(trainer.step, score.gain, score.restored)
                plot_curves(self.log.rows, self.job.run / "curves.png")
        except OSError as error:
            self.note(f"warning: cannot write to '{self.job.run}': {error}; training continues")
        self.report(progress)

    def close(self) -> None:
        """Plot the final curves, and say if training did not help."""
        best, last = self.trainer.best, self.trainer.facts.get("last_score")
        if best and last and best["step"] == 0 < last["step"] and last["psnr"] <= best["psnr"]:
            self.note("note: no score is better than that of --weights, which are kept as the best")
        try:
            if self.log.rows:
                plot_curves(self.log.rows, self.job.run / "curves.png")
            if self.board:
                self.board.close()
        except OSError as error:
            self.note(f"warning: cannot write to '{self.job.run}': {error}")

    def _keep_best(self, facts: dict[str, Any]) -> None:
        trainer = self.trainer
        best = {"phase": trainer.phase.name, **facts}
        try:
            write_ema_weights(trainer.state().model_copy(update={"best": best}), self.job.best)
        except RestoreError as error:
            self.note(f"warning: {error}; training continues")
            return
        trainer.best = best
