"""A degradation recipe: which ranges parameters are drawn from, and the order they are applied in.

Two steps, so that what was drawn can be written down and drawn parameters can be applied again:
`draw` (random numbers, no pixels) and `degrade` (pixels, no random numbers).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from restore_cli import toml_file
from restore_cli.degradations.jpeg import compress_jpeg
from restore_cli.degradations.motion import (
    Trajectory,
    blur,
    blur_with_object,
    draw_mask,
    draw_trajectory,
)
from restore_cli.degradations.response import to_encoded, to_linear
from restore_cli.degradations.sensor import add_noise, quantise
from restore_cli.resample import resize_bicubic


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"low {limits[0]} is above high {limits[1]}")
    return limits


def _positive(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] <= 0:
        raise ValueError("a range drawn log-uniformly must lie above 0")
    return limits


def _jpeg_quality(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] < 1 or limits[1] > 100:
        raise ValueError("JPEG quality is 1 to 100")
    return limits


Fraction = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
LogRange = Annotated[Range, AfterValidator(_positive)]
FOLDER = Path(__file__).parent.parent / "recipes" / "degrade"


class DegradationRecipe(BaseModel):
    """Ranges are [low, high], drawn log-uniformly; fractions are shares of the pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    scale: Annotated[int, Field(ge=1, le=8)] = 4
    sharp: Fraction  # pictures taken with the camera at rest
    length: LogRange  # path length in pixels of the sharp picture
    samples: Annotated[int, Field(ge=2)]  # poses averaged
    objects: Fraction  # pictures with an object that moves on its own
    noise: Fraction
    shot: LogRange  # variance per unit of linear light
    read: LogRange  # standard deviation in linear light
    jpeg: Fraction
    quality: Annotated[Range, AfterValidator(_jpeg_quality)]  # uniform, libjpeg's


@dataclass(frozen=True, slots=True)
class MovingObject:
    """A blob of the mirrored picture that moves in front of the picture."""

    trajectory: Trajectory
    mask_seed: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that was drawn for one picture.

    Attributes:
        path: the camera's.
        moving: an object that moves on its own, or None.
        shot: variance of the noise per unit of linear light.
        read: its standard deviation in the dark.
        noise_seed: seed of the noise field.
        quality: of the JPEG compression, or None.
    """

    trajectory: Trajectory
    moving: MovingObject | None
    shot: float
    read: float
    noise_seed: int
    quality: float | None

    def record(self) -> dict[str, object]:
        """Plain numbers and lists, for JSON."""

        def plain(value: object) -> object:
            if isinstance(value, np.ndarray):
                return value.tolist()
            if isinstance(value, dict):
                return {key: plain(item) for key, item in value.items()}
            return value

        return {"length": self.trajectory.length} | {
            key: plain(value) for key, value in dataclasses.asdict(self).items()
        }


def load_degradation(name_or_path: str) -> DegradationRecipe:
    """A shipped recipe by name, or one from a file.

    Raises:
        UsageError: unknown name.
        RecipeError: unknown key, wrong type, value out of range.
    """
    return toml_file.load(DegradationRecipe, name_or_path, FOLDER, "degradation recipe")


def draw(
    recipe: DegradationRecipe,
    rng: np.random.Generator,
    *,
    picture: tuple[int, int],
    centre: tuple[float, float],
) -> Parameters:
    """Draw one picture's parameters.

    Args:
        recipe: the ranges.
        rng: source of all randomness.
        picture: height, width of the whole picture the image is (a crop of).
        centre: x, y of the picture's centre in pixels of the image.
    """

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    def trajectory(length: float) -> Trajectory:
        return draw_trajectory(
            rng, length=length, samples=recipe.samples, picture=picture, centre=centre
        )

    at_rest = rng.random() < recipe.sharp
    camera = trajectory(0.0 if at_rest else log_uniform(*recipe.length))
    moving = None
    if not at_rest and rng.random() < recipe.objects:
        own = trajectory(log_uniform(*recipe.length))
        moving = MovingObject(own, mask_seed=int(rng.integers(2**32)))
    noisy = rng.random() < recipe.noise
    compressed = rng.random() < recipe.jpeg
    return Parameters(
        camera,
        moving,
        shot=log_uniform(*recipe.shot) if noisy else 0.0,
        read=log_uniform(*recipe.read) if noisy else 0.0,
        noise_seed=int(rng.integers(2**32)),
        quality=float(rng.uniform(*recipe.quality)) if compressed else None,
    )


def degrade(
    sharp: Tensor, parameters: list[Parameters], scale: int, margin: int = 0
) -> tuple[Tensor, Tensor]:
    """Blur in linear light, downscale in encoded values, add noise, compress, round to 8 bits.

    Args:
        sharp: (B, 3, H, W) encoded values in [0, 1].
        parameters: one per image.
        scale: of the downscaling.
        margin: pixels cut from each side after blur and downscaling, a multiple of `scale`, so
            that a training crop sees real neighbours instead of a repeated edge.

    Returns:
        degraded (B, 3, h, w) on the 8-bit grid and its reference (B, 3, scale * h, scale * w),
        with h = (H - 2 margin) // scale.
    """
    height, width = (side - side % scale for side in sharp.shape[-2:])
    sharp = sharp[..., :height, :width]
    light, reference = _expose(sharp, parameters)
    small = resize_bicubic(to_encoded(light), height // scale, width // scale)
    if margin:
        inner = slice(margin // scale, -margin // scale)
        small, outer = small[..., inner, inner], slice(margin, -margin)
        reference = reference[..., outer, outer]
    small = _photograph(small, parameters)
    return small, reference.contiguous()


def _expose(sharp: Tensor, parameters: list[Parameters]) -> tuple[Tensor, Tensor]:
    """Blurred linear light, and the sharp encoded picture at the mean pose."""
    light, reference = to_linear(sharp), sharp.clone()
    blurred = light.clone()
    still = [n for n, p in enumerate(parameters) if p.moving is None and p.trajectory.length > 0]
    if still:
        blurred[still] = blur(light[still], [parameters[n].trajectory for n in still])
    both = [(n, p.moving) for n, p in enumerate(parameters) if p.moving is not None]
    if both:
        chosen = [n for n, _ in both]
        height, width = sharp.shape[-2:]
        masks = [draw_mask(np.random.default_rng(m.mask_seed), height, width) for _, m in both]
        mask = torch.from_numpy(np.stack(masks)[:, None]).to(sharp)
        front, back = light[chosen].flip(-1), light[chosen]
        blurred[chosen] = blur_with_object(
            back,
            [parameters[n].trajectory for n in chosen],
            front,
            mask,
            [m.trajectory for _, m in both],
        )
        reference[chosen] = to_encoded(front * mask + back * (1 - mask))
    return blurred, reference


def _photograph(small: Tensor, parameters: list[Parameters]) -> Tensor:
    """Noise, JPEG and rounding, each where it was drawn."""
    noisy = [n for n, p in enumerate(parameters) if p.shot > 0]
    small = small.clamp(0, 1)
    if noisy:
        chosen = [parameters[n] for n in noisy]
        shot, read = (
            small.new_tensor([getattr(p, key) for p in chosen]) for key in ("shot", "read")
        )
        seeds = [p.noise_seed for p in chosen]
        small[noisy] = to_encoded(add_noise(to_linear(small[noisy]), shot, read, seeds))
    lossy = [n for n, p in enumerate(parameters) if p.quality is not None]
    if lossy:
        quality = small.new_tensor([parameters[n].quality or 0 for n in lossy])
        small[lossy] = compress_jpeg(small[lossy], quality)
    return quantise(small)
