"""Descriptions of models: the records of the registry.

Terms: a *model* is a network family (`mprnet-mscam`); a *config* is a variant of it of a certain
size (`paper`, `lite`); a *network* is the `nn.Module` built from a config; a *checkpoint* is a set
of trained weights for one config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from restore_cli.errors import WeightsError

StateDict = Mapping[str, Tensor]
Size = tuple[int, int]  # height and width


@dataclass(frozen=True, slots=True)
class TilePlacement:
    """Position of a tile in its (padded) picture, in input pixels."""

    top: int
    left: int
    picture_height: int
    picture_width: int


@dataclass(frozen=True, slots=True)
class SizeRequirement:
    """Input sizes that a network accepts; the restorer pads others and crops the result."""

    multiple_of: int = 1
    minimum: int = 1

    def padded(self, length: int) -> int:
        """Return the smallest accepted length that is at least `length`, pixels."""
        longest = max(length, self.minimum)
        return -(-longest // self.multiple_of) * self.multiple_of


class Tiling(Enum):
    """Whether a picture may be restored tile by tile.

    A network with global statistics runs on whole pictures only, regardless of this value.
    """

    SUPPORTED = "supported"  # with local statistics, tiled and whole results are nearly equal
    DISCOURAGED = "discouraged"  # local statistics change the network too much: on request only
    # Layers use all of their input, so a window's result differs from the whole picture's, but with
    # equal quality: the model runs on windows of the sizes that were measured.
    WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class PublishedFormat:
    """Parameter names and layouts of the authors' files of a network."""

    name: str  # name in messages
    # whether a state dict, without wrappers and prefixes, is in this format
    recognises: Callable[[StateDict], bool]
    # such a state dict -> ours; raises `WeightsError` if tensors of the same parameter differ. The
    # importer checks keys and shapes afterwards.
    convert: Callable[[StateDict], dict[str, Tensor]]
    train_size: tuple[int, int]  # height, width of the authors' training patches, input pixels
    # other networks with the same keys, so that the user must name the model; or ""
    caution: str = ""


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """A module whose outputs may be precomputed while it is frozen.

    The network then has `prepare(image)`, which returns those outputs by name, maps whose sides are
    the image's divided by integers, and `outputs(image, wanted, prepared)`, which uses them instead
    of running the module.
    """

    name: str  # name of the module in the network
    multiple_of: int  # the rest of the network accepts images whose sides are multiples of it


@dataclass(frozen=True, slots=True)
class Model:
    """One network family: how to recognise, configure and build it."""

    name: str  # name on the command line
    task: str  # for the user, e.g. "motion deblurring and x4 super-resolution"
    scale: int  # output pixels per input pixel along one side
    parameters: int  # number of parameters of the published network
    macs: int  # multiply-adds of the published network for a 64x64 input, without auxiliary images
    paper: str  # publication of the network
    code_license: str  # SPDX licence of our implementation
    configs: Mapping[str, Any]  # named configs, frozen dataclasses; the first is the published one
    # config -> network, in training mode, with fresh weights. Its `forward` takes an image (B, 3,
    # H, W) in [0, 1] and returns the restored one, unclamped, `scale` times the size; its
    # `outputs(image, wanted)` returns the outputs for training losses by name, only those in
    # `wanted` (None for all).
    build: Callable[[Any], nn.Module]
    # whether a state dict is of this family, without false negatives
    detect: Callable[[StateDict], bool]
    # config from the shapes of a state dict that `detect` accepted
    infer_config: Callable[[StateDict], Any]
    # config -> approximate peak memory of inference per input pixel, float32, for the automatic
    # tile size
    bytes_per_pixel: Callable[[Any], int]
    size: SizeRequirement = SizeRequirement()  # accepted input sizes
    tiling: Tiling = Tiling.SUPPORTED  # whether it may run in tiles
    # default limit of a tile's side in input pixels. Beyond 1024 the overlap is a small part of the
    # work; for `Tiling.WINDOWS`, the largest size with measured quality; smaller to save memory.
    largest_tile: int = 1024
    # default overlap of tiles in input pixels, for checkpoints without a measured one
    overlap: int = 64
    # whether it must grow with the window of local statistics beyond 96 px
    overlap_grows: bool = False
    tiling_note: str = ""  # reason why tiling is discouraged, or ""
    # whether `forward` takes a `placement`, since its result depends on it
    takes_placement: bool = False
    # formats of the authors' files, for the importer and the parity tests
    published: tuple[PublishedFormat, ...] = ()
    # supported dtypes of weights and features
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)
    frozen_part: FrozenPart | None = None  # the part whose outputs training may precompute, or None
    # config of the smallest network with every part, for tests; None for models that are not in the
    # registry
    tiny: Any = None
    # other values of hyperparameters of `tiny` that tests cannot double (numbers) or negate
    tiny_changes: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def tile_step(self) -> int:
        """The start of every tile is a multiple of this number of pixels.

        Tiles must be aligned to the grid of the smallest map to give the same result as the whole
        picture. Windows are independent pictures and may start anywhere.
        """
        return 1 if self.tiling is Tiling.WINDOWS else self.size.multiple_of

    def cost(self, config: Any) -> tuple[int, int]:
        """Count the parameters, and the multiply-adds for a 64x64 input."""
        if config == next(iter(self.configs.values()), None):
            return self.parameters, self.macs  # counting takes 0.2 to 6 s
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  for few commands

        with torch.device("meta"):
            network = self.build(config).eval()
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(1, 3, 64, 64))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return parameters, counter.get_total_flops() // 2  # it counts two per multiply-add

    def parse_config(self, values: Mapping[str, object]) -> Any:
        """Make a config from stored values.

        Raises `WeightsError` if a field is unknown, missing or of another type.
        """
        kind = type(next(iter(self.configs.values())))
        fields = {field.name: field for field in dataclasses.fields(kind)}
        unknown = sorted(set(values) - set(fields))
        missing = sorted(
            name
            for name, field in fields.items()
            if name not in values and field.default is dataclasses.MISSING
        )
        if unknown or missing:
            raise WeightsError(
                f"config of model '{self.name}' "
                + " and ".join(
                    f"{what} {', '.join(names)}"
                    for what, names in (("has unknown fields", unknown), ("lacks", missing))
                    if names
                ),
                hint=f"this version of restore knows {', '.join(fields)}",
            )
        for name, value in values.items():
            wanted = {"int": int, "bool": bool}[str(fields[name].type)]
            if type(value) is not wanted:
                raise WeightsError(
                    f"config of model '{self.name}': {name} = {value!r} is not {wanted.__name__}"
                )
        return kind(**values)
