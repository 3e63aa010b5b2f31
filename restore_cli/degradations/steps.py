"""The steps of a degradation recipe: each draws parameters for a picture, and processes a batch.

Parameters are plain numbers, strings and lists (the JSON record of a picture stores them), or None
if the step skips the picture. Drawing uses no pixels, applying uses no random numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from restore_cli.degradations.jpeg import compress_jpeg
from restore_cli.degradations.kernels import (
    convolve,
    disc_kernel,
    gaussian_kernel,
    path_kernel,
    read_kernel,
)
from restore_cli.degradations.motion import (
    Trajectory,
    blur,
    blur_with_object,
    draw_mask,
    draw_trajectory,
)
from restore_cli.resample import resize_bicubic
from restore_cli.toml_file import Record

StepParameters = dict[str, Any]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"low {limits[0]} is above high {limits[1]}")
    return limits


Fraction = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Positive = Annotated[float, Field(gt=0)]
LogRange = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]  # drawn log-uniformly
# Bounded, since a kernel takes memory that grows with the square of its side.
BlurSize = Annotated[float, Field(ge=0.001, le=250)]  # pixels
BlurRange = Annotated[tuple[BlurSize, BlurSize], AfterValidator(_ordered)]  # drawn log-uniformly
JpegQuality = Annotated[float, Field(ge=1, le=100)]


@dataclass(frozen=True, slots=True)
class Scene:
    """Properties of a picture that the drawing of a step may depend on."""

    # height, width of the whole sharp picture that the image is (a crop of)
    picture: tuple[int, int]
    centre: tuple[float, float]  # x, y of the picture's centre in pixels of the image
    scale: int  # scale of the recipe
    downscaled_by: int = 1  # factor by which previous steps have downscaled the image


@dataclass(slots=True)
class Images:
    """A batch between two steps."""

    image: Tensor  # (B, 3, H, W), in the domain of the step that is applied
    reference: Tensor  # (B, 3, H', W') sharp, encoded; a step that changes the scene changes it too
    # linear light -> encoded values of the recipe's camera, for the reference
    to_encoded: Callable[[Tensor], Tensor]


class Step(Record, ABC, use_attribute_docstrings=True):
    """One step of a degradation."""

    linear: ClassVar[bool]  # whether it works on linear light rather than on encoded values
    spatial: ClassVar[bool] = True  # whether it mixes neighbouring pixels

    probability: Fraction = 1.0
    """Probability that it is applied to a picture."""

    def draw(self, rng: np.random.Generator, scene: Scene) -> StepParameters | None:
        """Draw the step's parameters for one picture, or None to skip it.

        They are plain values by name, in the units of the step's fields; `scene` states where the
        image lies in the whole sharp picture.
        """
        if self.probability < 1 and rng.random() >= self.probability:
            return None
        return self._draw_parameters(rng, scene)

    @abstractmethod
    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters | None:
        """Draw the parameters of a picture that the probability has selected."""

    @abstractmethod
    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        """Apply the step to images, in place, with one set of parameters each.

        `drawn` holds what `draw` of this step returned (not None) for each of the B images.
        """


class Motion(Step):
    """Camera shake, and objects with their own motion in front of a moving background."""

    linear = True

    kind: Literal["motion"]
    sharp: Fraction = 0.0
    """Fraction of the pictures taken with the camera at rest."""
    length: LogRange
    """Length of the path, pixels of the sharp picture, drawn log-uniformly."""
    samples: Annotated[int, Field(ge=2, le=1000)] = 24
    """Number of averaged poses."""
    objects: Fraction = 0.0
    """Fraction of the other pictures with a moving object."""
    degrees_of_freedom: Literal[3, 6] = 3
    """3 for a camera that rotates, 6 for one that also moves."""
    walk: tuple[Positive, Positive] | None = None
    """Random part of the velocity over the drift, log-normal: median, and standard deviation of its
    logarithm; without it, uniform from 0 to 1.5."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters | None:
        def trajectory(length: float) -> Trajectory:
            x, y = scene.centre
            height, width = scene.picture
            return draw_trajectory(
                rng,
                length=length / scene.downscaled_by,
                samples=self.samples,
                picture=(height // scene.downscaled_by, width // scene.downscaled_by),
                centre=(x / scene.downscaled_by, y / scene.downscaled_by),
                degrees_of_freedom=self.degrees_of_freedom,
                walk=self.walk,
            )

        at_rest = rng.random() < self.sharp
        camera = trajectory(0.0 if at_rest else log_uniform(rng, self.length))
        moving = None
        if not at_rest and rng.random() < self.objects:
            own = trajectory(log_uniform(rng, self.length))
            moving = {"path": own.record(), "mask_seed": int(rng.integers(2**32))}
        if at_rest:
            return None
        return {"length": camera.length, "path": camera.record(), "object": moving}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        still = [n for n, one in enumerate(drawn) if one["object"] is None]
        moving = [n for n, one in enumerate(drawn) if one["object"] is not None]
        paths = [Trajectory.from_record(one["path"]) for one in drawn]
        linear = images.image
        blurred = torch.empty_like(linear)
        if still:
            blurred[still] = blur(linear[still], [paths[n] for n in still])
        if moving:
            objects = [drawn[n]["object"] for n in moving]
            height, width = linear.shape[-2:]
            seeds = [np.random.default_rng(one["mask_seed"]) for one in objects]
            masks = np.stack([draw_mask(seed, height, width) for seed in seeds])
            mask = torch.from_numpy(masks[:, None]).to(linear)
            back, front = linear[moving], linear[moving].flip(-1)
            blurred[moving] = blur_with_object(
                back,
                [paths[n] for n in moving],
                front,
                mask,
                [Trajectory.from_record(one["path"]) for one in objects],
            )
            images.reference[moving] = images.to_encoded(front * mask + back * (1 - mask))
        images.image = blurred


class RandomKernel(Step):
    """Uniform blur by a random path as a kernel (Lai et al.)."""

    linear = True

    kind: Literal["random_kernel"]
    side: Annotated[
        tuple[Annotated[int, Field(ge=3)], Annotated[int, Field(le=255)]], AfterValidator(_ordered)
    ]
    """Side of the kernel, pixels; drawn uniformly from the odd numbers of the range."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        low, high = (side // 2 for side in self.side)
        side = 2 * int(rng.integers(low, high + 1)) + 1
        path = draw_trajectory(rng, length=1.0, samples=64, picture=scene.picture, centre=(0, 0))
        return {"side": side, "path": path.shift.tolist()}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        kernels = [path_kernel(np.array(one["path"]), one["side"]) for one in drawn]
        images.image = convolve(images.image, kernels)


class Kernel(Step):
    """Uniform blur by the kernel of a file, drawn uniformly from several."""

    linear = True

    kind: Literal["kernel"]
    files: Annotated[list[str], Field(min_length=1)]
    """`.npy`, `.mat` or pictures; paths relative to the working directory."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        file = self.files[int(rng.integers(len(self.files)))]
        return {"file": file, "kernel": read_kernel(Path(file)).tolist()}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        images.image = convolve(images.image, [np.array(one["kernel"]) for one in drawn])


class Gaussian(Step):
    """Gaussian blur."""

    linear = True

    kind: Literal["gaussian"]
    sigma: BlurRange
    """In pixels, drawn log-uniformly."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"sigma": log_uniform(rng, self.sigma)}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        images.image = convolve(images.image, [gaussian_kernel(one["sigma"]) for one in drawn])


class Defocus(Step):
    """Defocus blur by a disc."""

    linear = True

    kind: Literal["defocus"]
    radius: BlurRange
    """In pixels, drawn log-uniformly."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"radius": log_uniform(rng, self.radius)}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        images.image = convolve(images.image, [disc_kernel(one["radius"]) for one in drawn])


class Highlights(Step):
    """Lamps and reflections brighter than white: linear light above a threshold is amplified.

    Motion turns them into saturated streaks, which blurring clipped values cannot reproduce.
    """

    linear = True
    spatial = False

    kind: Literal["highlights"]
    gain: LogRange
    """Gain of white, drawn log-uniformly; it grows linearly from 1 at the threshold."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Threshold in linear light."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"gain": log_uniform(rng, self.gain)}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        gain = images.image.new_tensor([one["gain"] for one in drawn])[:, None, None, None]
        above = ((images.image - self.threshold) / (1 - self.threshold)).clamp_min(0)
        images.image = images.image * (1 + (gain - 1) * above)


class Downscale(Step):
    """MATLAB's bicubic `imresize`, antialiased, in encoded values, by the recipe's scale."""

    linear = False

    kind: Literal["downscale"]

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"factor": scene.scale}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        (factor,) = {one["factor"] for one in drawn}
        height, width = (side // factor for side in images.image.shape[-2:])
        images.image = resize_bicubic(images.image, height, width)


class Noise(Step):
    """Poisson-Gaussian noise of a sensor in linear light; both parameters drawn log-uniformly."""

    linear = True
    spatial = False

    kind: Literal["noise"]
    shot: LogRange
    """Variance per unit of light (shot noise)."""
    read: LogRange
    """Standard deviation in the dark (read noise)."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        shot, read = log_uniform(rng, self.shot), log_uniform(rng, self.read)
        return {"shot": shot, "read": read, "seed": int(rng.integers(2**32))}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        shot, read = (images.image.new_tensor([one[k] for one in drawn]) for k in ("shot", "read"))
        images.image = add_noise(images.image, shot, read, [one["seed"] for one in drawn])


class GaussianNoise(Step):
    """White Gaussian noise in encoded values."""

    linear = False
    spatial = False

    kind: Literal["gaussian_noise"]
    sigma: LogRange
    """For values in [0, 1], drawn log-uniformly."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"sigma": log_uniform(rng, self.sigma), "seed": int(rng.integers(2**32))}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        read = images.image.new_tensor([one["sigma"] for one in drawn])
        seeds = [one["seed"] for one in drawn]
        images.image = add_noise(images.image, torch.zeros_like(read), read, seeds)


class UniformNoise(Step):
    """Uniform noise in [0, amplitude] in encoded values, as in Lai et al.'s synthesis."""

    linear = False
    spatial = False

    kind: Literal["uniform_noise"]
    amplitude: Annotated[float, Field(gt=0, le=1)]

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"seed": int(rng.integers(2**32))}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        shape = tuple(images.image.shape[1:])
        fields = [np.random.default_rng(one["seed"]).random(shape, np.float32) for one in drawn]
        field = torch.from_numpy(np.stack(fields)).to(images.image)
        images.image = images.image + self.amplitude * field


class Sharpen(Step):
    """An unsharp mask, as cameras apply to their pictures."""

    linear = False

    kind: Literal["sharpen"]
    amount: Range
    """Weight of the difference to the smoothed picture, drawn uniformly."""
    sigma: BlurSize = 1.0
    """Sigma of the smoothing, pixels."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"amount": float(rng.uniform(*self.amount))}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        amount = images.image.new_tensor([one["amount"] for one in drawn])[:, None, None, None]
        kernel = gaussian_kernel(self.sigma)
        smooth = convolve(images.image, [kernel] * len(drawn))
        images.image = images.image + amount * (images.image - smooth)


class Jpeg(Step):
    """JPEG compression as by libjpeg."""

    linear = False
    spatial = False  # it mixes pixels inside 8x8 blocks only, so it needs no margin

    kind: Literal["jpeg"]
    quality: Annotated[tuple[JpegQuality, JpegQuality], AfterValidator(_ordered)]
    """From 1 to 100, drawn uniformly."""

    def _draw_parameters(self, rng: np.random.Generator, scene: Scene) -> StepParameters:
        return {"quality": float(rng.uniform(*self.quality))}

    def apply(self, images: Images, drawn: list[StepParameters]) -> None:
        quality = images.image.new_tensor([one["quality"] for one in drawn])
        images.image = compress_jpeg(images.image.clamp(0, 1), quality)


AnyStep = Annotated[
    Motion
    | RandomKernel
    | Kernel
    | Gaussian
    | Defocus
    | Highlights
    | Downscale
    | Noise
    | GaussianNoise
    | UniformNoise
    | Sharpen
    | Jpeg,
    Field(discriminator="kind"),
]


def add_noise(linear: Tensor, shot: Tensor, read: Tensor, seeds: list[int]) -> Tensor:
    """Add Poisson-Gaussian noise in its normal approximation: variance shot * linear + read^2.

    `linear` is (B, C, H, W) linear light, and so is the result, possibly outside [0, 1]. `shot`
    (B,) is the variance per unit of light, and `read` (B,) the standard deviation in the dark. Each
    image has its own seed.
    """
    shape = tuple(linear.shape[1:])
    fields = [np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in seeds]
    field = torch.from_numpy(np.stack(fields)).to(linear)
    variance = shot[:, None, None, None] * linear.clamp_min(0) + read[:, None, None, None] ** 2
    return linear + field * variance.sqrt()


def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Draw a number log-uniformly between `limits`, low and high, both above 0."""
    low, high = limits
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
