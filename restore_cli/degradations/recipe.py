"""A degradation recipe: steps in order, a camera response, and rules for sizes and patches.

There are two stages, so that drawn parameters can be stored and applied again: `draw` (random
numbers, no pixels) and `degrade` (pixels, no random numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from restore_cli import toml_file
from restore_cli.degradations.response import Response, to_encoded, to_linear
from restore_cli.degradations.steps import AnyStep, Downscale, Images, Motion, Scene, StepParameters
from restore_cli.errors import RecipeError
from restore_cli.rounding import quantise
from restore_cli.toml_file import Record, first_problem

FOLDER = Path(__file__).parent.parent / "recipes" / "degrade"
DESCRIPTIVE_FIELDS = {"name", "description", "source"}  # fields of a recipe that affect no pixels
Odd = Annotated[int, Field(ge=1, le=9999)]


class Frames(Record, use_attribute_docstrings=True):
    """How the frames of a video become one blurry picture, in place of `motion` steps."""

    count: tuple[Odd, Odd]
    """Smallest and largest number of averaged frames, both odd; drawn per picture."""
    between: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of frames interpolated between two (by optical flow) before averaging."""

    @model_validator(mode="after")
    def _odd(self) -> Frames:
        if any(count % 2 == 0 for count in self.count) or self.count[0] > self.count[1]:
            raise ValueError(
                "count must be two odd numbers, low and high, so that there is a middle frame"
            )
        return self


class Patches(Record, use_attribute_docstrings=True):
    """Cut the sharp picture into patches before anything else."""

    side: Annotated[int, Field(ge=16)]
    """Side of a square patch, pixels; a multiple of the recipe's scale."""
    stride: Annotated[int, Field(ge=1)]
    """Distance between patches, pixels."""
    gradient: Annotated[float, Field(ge=0)] = 0.0
    """Smallest mean gradient magnitude of a patch, for values in [0, 1]; others are left out."""


class DegradationRecipe(Record, use_attribute_docstrings=True):
    """How sharp pictures are degraded."""

    name: str
    """Name of the recipe."""
    description: str
    """Description, one line."""
    source: str
    """Source of the procedure."""
    scale: Annotated[int, Field(ge=1, le=8)] = 4
    """Factor of the downscaling step; 1 without one."""
    response: Response = "srgb"
    """Camera response between encoded values and linear light."""
    sizes: Annotated[list[Annotated[float, Field(ge=0.01, le=1)]], Field(min_length=1)] = [1.0]
    """The sharp picture is first resized by one of these factors (with patches, by all). Training
    ignores sizes and patches, and makes its own crops.
    """
    patches: Patches | None = None
    """Cutting into patches; None for whole pictures."""
    frames: Frames | None = None
    """Averaging of frames of videos; None for recipes that do not support videos."""
    bits: Literal[8, 32] = 8
    """8, or 32 for float32 values that are neither rounded nor clipped."""
    steps: list[AnyStep]
    """Steps in order."""

    @model_validator(mode="after")
    def _consistent(self) -> DegradationRecipe:
        kinds = [step.kind for step in self.steps]
        if kinds.count("downscale") > 1:
            raise ValueError("more than one downscale step")
        if (self.scale > 1) != ("downscale" in kinds):
            needs = "needs" if self.scale > 1 else "does not permit"
            raise ValueError(f"scale {self.scale} {needs} a downscale step")
        if any(isinstance(step, Downscale) and step.probability < 1 for step in self.steps):
            raise ValueError("a downscale step applies to every picture: its probability is 1")
        if self.patches and self.patches.side % self.scale:
            raise ValueError(
                f"patches of {self.patches.side} px are not divisible by scale {self.scale}"
            )
        if "downscale" in kinds:
            for step in self.steps[kinds.index("downscale") :]:
                if isinstance(step, Motion) and step.objects:
                    raise ValueError("moving objects must come before the downscale step")
        return self

    def before_downscale(self) -> DegradationRecipe:
        """Return the steps before downscaling, at scale 1, for the blurry picture at full size."""
        kinds = [step.kind for step in self.steps]
        last = kinds.index("downscale") if "downscale" in kinds else len(kinds)
        return self.model_copy(update={"scale": 1, "steps": self.steps[:last]})

    def at_scale(self, scale: int) -> DegradationRecipe:
        """Return the recipe at another scale, a downscale step put after the blurs or removed.

        Raises `RecipeError` if its patches are too small for that scale.
        """
        values = self.model_dump()
        steps = [step for step in values["steps"] if step["kind"] != "downscale" or scale > 1]
        if scale > 1 and self.scale == 1:
            spatial = [n for n, step in enumerate(self.steps) if step.spatial]
            place = spatial[-1] + 1 if spatial else 0
            steps.insert(place, {"kind": "downscale"})
        if self.patches:
            values["patches"]["side"] -= self.patches.side % scale
        try:
            return DegradationRecipe.model_validate(values | {"scale": scale, "steps": steps})
        except ValidationError as error:
            what = f"recipe '{self.name}' at scale {scale}"
            raise RecipeError(f"{what}: {first_problem(error)}") from error


Parameters = list[StepParameters | None]  # parameters of one picture, one entry per step


def load_degradation(name_or_path: str) -> DegradationRecipe:
    """Load a shipped recipe by name, or one from a file.

    Raises:
        UsageError: the name is unknown.
        RecipeError: a key is unknown, or a value has a wrong type or is out of range.
    """
    return toml_file.load(DegradationRecipe, name_or_path, FOLDER, "degradation recipe")


def shipped_degradations() -> list[str]:
    """Name the recipes that come with the package."""
    return toml_file.names(FOLDER)


def draw(
    recipe: DegradationRecipe,
    rng: np.random.Generator,
    *,
    picture: tuple[int, int],
    centre: tuple[float, float],
    motion: bool = True,
) -> Parameters:
    """Draw one picture's parameters.

    Args:
        recipe: recipe with the ranges.
        rng: source of all randomness.
        picture: height, width of the whole picture that the image is (a crop of).
        centre: x, y of the picture's centre in pixels of the image.
        motion: whether motion is drawn; averaged frames contain the motion blur already.
    """
    parameters: Parameters = []
    shrunk = 1
    for step in recipe.steps:
        drawn = step.draw(rng, Scene(picture, centre, recipe.scale, shrunk))
        parameters.append(drawn if motion or not isinstance(step, Motion) else None)
        if isinstance(step, Downscale):
            shrunk = recipe.scale
    return parameters


def degrade(
    sharp: Tensor,
    parameters: list[Parameters],
    recipe: DegradationRecipe,
    *,
    margin: int = 0,
    reference: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply the recipe's steps with drawn parameters.

    Args:
        sharp: (B, 3, H, W) encoded values in [0, 1].
        parameters: drawn parameters, one entry per image.
        recipe: recipe that they were drawn from.
        margin: pixels cropped from each side after the last step that mixes neighbours, a multiple
            of the scale, so that training crops depend on real neighbours, not on padding.
        reference: the sharp picture, if `sharp` is blurred already (averaged frames).

    Returns:
        degraded (B, 3, h, w), on the 8-bit grid unless the recipe has 32 bits, and its reference
        (B, 3, scale * h, scale * w), with h = (H - 2 margin) // scale.
    """
    scale = recipe.scale
    height, width = (side - side % scale for side in sharp.shape[-2:])
    sharp = sharp[..., :height, :width]
    reference = (sharp if reference is None else reference[..., :height, :width]).clone()
    image, is_linear = sharp, False
    spatial = [n for n, step in enumerate(recipe.steps) if step.spatial]
    for n, step in enumerate(recipe.steps):
        chosen = [i for i, drawn in enumerate(parameters) if drawn[n] is not None]
        if chosen:
            if is_linear != step.linear:
                convert = to_linear if step.linear else to_encoded
                image, is_linear = convert(image, recipe.response), step.linear
            images = Images(
                image[chosen], reference[chosen], partial(to_encoded, response=recipe.response)
            )
            step.apply(images, [one for drawn in parameters if (one := drawn[n]) is not None])
            if len(chosen) == len(parameters):
                image, reference = images.image, images.reference
            else:
                image, reference = image.clone(), reference.clone()
                image[chosen], reference[chosen] = images.image, images.reference
        if margin and spatial and n == spatial[-1]:
            image, reference = _without_margin(image, reference, margin, scale)
    if is_linear:
        image = to_encoded(image, recipe.response)
    if margin and not spatial:
        image, reference = _without_margin(image, reference, margin, scale)
    return (quantise(image) if recipe.bits == 8 else image), reference.contiguous()


def _without_margin(
    image: Tensor, reference: Tensor, margin: int, scale: int
) -> tuple[Tensor, Tensor]:
    inner, outer = slice(margin // scale, -margin // scale), slice(margin, -margin)
    return image[..., inner, inner], reference[..., outer, outer]


def cut_patches(sharp: Tensor, patches: Patches) -> list[tuple[int, int]]:
    """Return top, left of every patch of (1, 3, H, W) in [0, 1] with a sufficient gradient.

    The criterion is that of GFN's authors: the mean over pixels and channels of the magnitude of
    MATLAB's `gradient` (central differences, one-sided at the borders). `patches` states the
    smallest mean; its side and stride are in pixels.
    """
    height, width = sharp.shape[-2:]
    places = [
        (top, left)
        for top in range(0, height - patches.side + 1, patches.stride)
        for left in range(0, width - patches.side + 1, patches.stride)
    ]
    if not patches.gradient:
        return places

    def mean_gradient(top: int, left: int) -> float:
        patch = sharp[..., top : top + patches.side, left : left + patches.side]
        down, right = torch.gradient(patch, dim=(-2, -1))
        return float(torch.hypot(down, right).mean())

    return [place for place in places if mean_gradient(*place) >= patches.gradient]


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread in the block: results then do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
