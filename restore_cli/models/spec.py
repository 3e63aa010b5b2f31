"""What a model says about itself: the records of the registry.

Words used throughout: a *model* is a network family (`mprnet-mscam`); a *config* is one sized
variant of it (`paper`, `lite`); a *network* is the `nn.Module` built from a config; a *checkpoint*
is a set of trained weights for one config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from restore_cli.errors import WeightsError

StateDict = Mapping[str, Tensor]


class Config(Protocol):
    """A frozen dataclass of plain numbers and booleans that fixes the shape of a network."""

    __dataclass_fields__: Any


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tile lies in the (padded) picture it was cut from, in input pixels."""

    top: int
    left: int
    picture_height: int
    picture_width: int


@dataclass(frozen=True, slots=True)
class SizeRequirement:
    """Input sizes a network takes; others are padded and cropped by the restorer."""

    multiple_of: int = 1
    minimum: int = 1

    def padded(self, length: int) -> int:
        """The smallest accepted length that is at least `length`."""
        longest = max(length, self.minimum)
        return -(-longest // self.multiple_of) * self.multiple_of


class Tiling(Enum):
    """Whether a picture may be restored tile by tile as the network was published.

    A network whose statistics are not local runs whole pictures only, whatever this says.
    """

    SUPPORTED = "supported"  # with local statistics, tiled equals whole up to the measured decay
    DISCOURAGED = "discouraged"  # making its statistics local is another network: only on request
    # A window is not restored as inside the whole, since layers reach across all of their input,
    # but as well: the model is run on windows of the sizes it was measured at.
    WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class PublishedFormat:
    """How the authors' files of a network name and lay out its parameters.

    Attributes:
        name: for people.
        recognises: whether a state dict, without wrappers and prefixes, is in this format.
        convert: such a state dict -> ours; raises `WeightsError` where names that share a
            parameter disagree. Whether keys and shapes are complete is checked afterwards.
        train_size: height, width of the authors' training patches, input pixels.
        caution: what else has the same keys, so that only a user can know; then the model must be
            named. Or "".
    """

    name: str
    recognises: Callable[[StateDict], bool]
    convert: Callable[[StateDict], dict[str, Tensor]]
    train_size: tuple[int, int]
    caution: str = ""


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """A module whose outputs may be computed once, beforehand, while nothing trains it.

    The network then has `prepare(image)`, which gives those outputs by name, maps whose sides are
    the image's divided by whole numbers, and `outputs(image, wanted, prepared)`, which takes them
    in place of running the module.

    Attributes:
        name: of the module in the network.
        multiple_of: sides of the images that the rest of the network takes.
    """

    name: str
    multiple_of: int


@dataclass(frozen=True, slots=True)
class Model:
    """One network family: how to recognise, configure and build it.

    Attributes:
        name: as typed on the command line.
        task: for people, e.g. "motion deblurring and x4 super-resolution".
        scale: output pixels per input pixel along one side.
        parameters: of the published network.
        macs: multiply-adds of the published network for a 64x64 input, without its side images.
        paper: where the network was published.
        code_license: SPDX licence of our implementation.
        config_type: frozen dataclass that fixes a network of this family.
        configs: named configs; the first is the published one.
        build: config -> network, in training mode, with fresh weights. Its `forward` takes an image
            (B, 3, H, W) in [0, 1] and returns the restored one, unclamped, `scale` times the size;
            its `outputs(image, wanted)` returns the outputs a training loss may ask for by name,
            those among `wanted` only (None for all), and computes no others where that saves work.
        detect: whether a state dict is of this family; never a false negative.
        infer_config: config from the shapes of a state dict that `detect` accepted.
        bytes_per_pixel: config -> peak memory of one inference per input pixel, float32, roughly;
            for the automatic tile size.
        size: input sizes the network takes.
        tiling: whether it may run in tiles.
        largest_tile: side in input pixels where nobody asks for another. Beyond 1024 the overlap is
            a small share of the work; for `Tiling.WINDOWS`, up to what quality was measured.
        overlap: of tiles in input pixels, for checkpoints whose own nobody has measured.
        overlap_grows: whether it must grow with the window of local statistics beyond 96 px.
        tiling_note: why tiling is discouraged, or "".
        placed: whether `forward` takes a `placement` (its result depends on where a tile lies).
        published: formats of the authors' files, for the importer and the parity tests.
        dtypes: that its weights and features may have.
        frozen_part: what training may compute beforehand, or None.
        tiny: a config of the smallest network that still has every part, for tests; None for those
            that are not in the registry.
        tiny_changes: another value for each hyperparameter of `tiny`, for tests.
    """

    name: str
    task: str
    scale: int
    parameters: int
    macs: int
    paper: str
    code_license: str
    config_type: type[Any]
    configs: Mapping[str, Any]
    build: Callable[[Any], nn.Module]
    detect: Callable[[StateDict], bool]
    infer_config: Callable[[StateDict], Any]
    bytes_per_pixel: Callable[[Any], int]
    size: SizeRequirement = SizeRequirement()
    tiling: Tiling = Tiling.SUPPORTED
    largest_tile: int = 1024
    overlap: int = 64
    overlap_grows: bool = False
    tiling_note: str = ""
    placed: bool = False
    published: tuple[PublishedFormat, ...] = ()
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)
    frozen_part: FrozenPart | None = None
    tiny: Any = None
    tiny_changes: Mapping[str, int | bool] = field(default_factory=dict)

    @property
    def tile_step(self) -> int:
        """Pixels that the start of every tile is a multiple of.

        Tiles that give what the whole picture gives lie where its coarser maps have positions.
        Windows are pictures of their own and may lie anywhere.
        """
        return 1 if self.tiling is Tiling.WINDOWS else self.size.multiple_of

    def config_from(self, values: Mapping[str, object]) -> Any:
        """A config from stored values.

        Raises:
            WeightsError: on a field that is unknown, missing or of another type.
        """
        fields = {field.name: field for field in dataclasses.fields(self.config_type)}
        unknown = sorted(set(values) - set(fields))
        missing = sorted(
            name
            for name, field in fields.items()
            if name not in values and field.default is dataclasses.MISSING
        )
        if unknown or missing:
            raise WeightsError(
                f"config of model '{self.name}' has unknown fields {unknown}, lacks {missing}",
                hint="the checkpoint is of another version of restore, or of another model",
            )
        for name, value in values.items():
            wanted = {"int": int, "bool": bool}[str(fields[name].type)]
            if type(value) is not wanted:
                raise WeightsError(
                    f"config of model '{self.name}': {name} = {value!r} is not {wanted.__name__}"
                )
        return self.config_type(**values)
