"""The catalogue of checkpoints: `weights_manifest.toml`, validated strictly."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from restore_cli.errors import WeightsError
from restore_cli.toml_file import Record

FILE = "weights_manifest.toml"
Side = Annotated[int, Field(ge=1)]


class Measurement(Record):
    """One measured result."""

    # blur of the pictures: `real` (averaged frames of a camera), `synthetic`, or `none`
    blur: Literal["real", "synthetic", "none"] = "synthetic"
    data: str  # the pictures that were restored
    protocol: str  # crop, colour, rounding, TLSC
    psnr: float  # mean PSNR in dB
    ssim: float  # mean SSIM
    bicubic_psnr: float  # PSNR of bicubic interpolation on the same pictures
    bicubic_ssim: float  # likewise
    worst_gain: float  # smallest gain over bicubic interpolation of any picture, in dB
    command: str  # command that prints these numbers

    @property
    def gain(self) -> float:
        """Gain in mean PSNR over bicubic interpolation (at x1: over the input), in dB."""
        return round(self.psnr - self.bicubic_psnr, 4)  # more digits than are measured


class Weights(Record):
    """The facts about a file of weights."""

    name: str  # `model-config.training`; of a checkpoint, its key in the manifest
    model: str  # name of the network family
    # digest of the file; checked at every load
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1)]  # size of the file in bytes
    license: str  # SPDX licence of the weights


class Checkpoint(Weights):
    """One trained set of weights that the manifest lists."""

    config: dict[str, int | bool]  # all fields of the model's config; must equal those in the file
    # `bundled:FILE` or `hf://owner/repo/file.safetensors@revision`
    source: Annotated[
        str, Field(pattern=r"^(bundled:[\w.-]+|hf://[\w.-]+/[\w.-]+/[\w./-]+@[0-9a-f]{40})$")
    ]
    training_data: str  # description of the training data
    trained_by: str = ""  # who trained it, or parts of it; "" for this project alone
    recipe: str = ""  # name of the training recipe; "" if this project did not train it
    train_size: tuple[Side, Side]  # height and width of the training patches
    # window of local statistics at full resolution; None if statistics stay global
    tlsc_base: tuple[Side, Side] | None = None
    # overlap of tiles in input pixels, from the measured difference to untiled results
    overlap: Annotated[int, Field(ge=0)]
    default: bool = False  # whether this is the checkpoint of `--model` without `--weights`
    # per megapixel of the input, for 1280x960 in tiles, float32, on two cores of an AMD EPYC (AVX2)
    seconds_per_megapixel: Annotated[float, Field(gt=0)] | None = None
    scores: list[Measurement] = []  # measured results

    def gain(self, blur: str) -> float | None:
        """Return the gain in dB of the first score on that blur; None if there is none."""
        return next((score.gain for score in self.scores if score.blur == blur), None)


class Manifest(Record):
    """The catalogue."""

    default_models: dict[Literal["x1", "x4"], str]  # default models by scale, "x1" and "x4"
    checkpoints: dict[str, Checkpoint]  # all checkpoints by name

    @property
    def defaults(self) -> dict[str, Checkpoint]:
        """The default checkpoint of every model that has one."""
        return {one.model: one for one in self.checkpoints.values() if one.default}

    @model_validator(mode="after")
    def _one_default_a_model(self) -> Manifest:
        defaults = [c.model for c in self.checkpoints.values() if c.default]
        if len(defaults) != len(set(defaults)):
            raise ValueError("a model has more than one default checkpoint")
        return self


def parse_manifest(text: str) -> Manifest:
    """Parse the manifest; raises `WeightsError` if it is not valid."""
    try:
        raw = tomllib.loads(text)
        default_models = raw.pop("default_models", {})
        named = {name: {"name": name, **entry} for name, entry in raw.items()}
        return Manifest.model_validate({"default_models": default_models, "checkpoints": named})
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise WeightsError(f"{FILE} is broken: {error}") from error


@cache
def load_manifest() -> Manifest:
    """Return the manifest in the package; in a source checkout, the one at its root."""
    package = Path(__file__).parent.parent
    inside, beside = package / FILE, package.parent / FILE
    return parse_manifest((inside if inside.is_file() else beside).read_text("utf-8"))


def default_model(scale: int | None = None) -> str:
    """Return the name of the default model, the best measured one of a scale (x4 if None)."""
    return load_manifest().default_models["x1" if scale == 1 else "x4"]


def checkpoint_of(digest: str) -> Checkpoint | None:
    """Return the listed checkpoint of that sha256, or None."""
    listed = load_manifest().checkpoints.values()
    return next((checkpoint for checkpoint in listed if checkpoint.sha256 == digest), None)


def default_checkpoint(model: str) -> Checkpoint:
    """Return the default checkpoint of a model; raises `WeightsError` if it has none."""
    if found := load_manifest().defaults.get(model):
        return found
    raise WeightsError(
        f"model '{model}' has no checkpoint yet", hint="give one with --weights FILE.safetensors"
    )
