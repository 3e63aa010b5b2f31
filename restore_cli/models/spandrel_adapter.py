"""Loads networks of other projects through spandrel, and adds our networks to spandrel.

spandrel (MIT) recognises some forty published architectures by their keys: ESRGAN, NAFNet, SwinIR,
HAT, ... Such a file becomes a `Model` like any other, with spandrel's scale and size requirements,
and with the same tiling, alpha, 16 bits and batches. It has no global statistics that this package
could make local.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from restore_cli.errors import WeightsError
from restore_cli.formatting import first_line
from restore_cli.models.layers import GlobalStatistic
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import Model, SizeRequirement, StateDict, Tiling

if TYPE_CHECKING:
    from spandrel import ArchRegistry, ImageModelDescriptor

_HINT = 'pip install "restore-cli[zoo]"'
_MAX_LAYER_NUMBER = 5000  # in a layer's name; real networks have a few hundred at most
_SAMPLE = 64  # side of the picture that memory is measured with
# Peak memory in units of the largest map: an assumption, not measured. The automatic tile size uses
# only half of the free memory.
_MAPS_ALIVE = 4


@dataclass(frozen=True, slots=True)
class SpandrelConfig:
    """What spandrel recognised in a file."""

    architecture: str  # spandrel's name of the architecture
    tags: tuple[str, ...]  # sizes and variants, for the user


class SpandrelNetwork(nn.Module):
    """A network of spandrel with our calling convention."""

    def __init__(self, found: ImageModelDescriptor[Any]) -> None:
        super().__init__()
        self.network = found.model
        self.found = found

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to (B, 3, scale * H, scale * W) in [0, 1].

        A network of one channel runs on each of the three; spandrel takes one picture at a time.
        """
        channels = self.found.input_channels
        pictures = image.reshape(-1, channels, *image.shape[-2:])
        restored = torch.cat([self.found(picture[None]) for picture in pictures])
        return restored.reshape(image.shape[0], 3, *restored.shape[-2:])


def recognise(state: StateDict, name: str) -> tuple[Model, SpandrelConfig, nn.Module]:
    """Load the network of a state dict that belongs to none of our models.

    Raises:
        WeightsError: spandrel is not installed, cannot be imported or does not know the network,
            or the network does not restore RGB or grey pictures of any shape.
    """
    registry, canonicalise, unsupported = _spandrel(
        f"'{name}' matches none of restore's models and cannot be loaded"
    )
    _check_layers(state, name)
    try:
        found = registry.load(canonicalise(dict(state)))
    except unsupported as error:
        raise WeightsError(
            f"'{name}' matches no network of restore or spandrel",
            hint=f"first keys: {', '.join(sorted(state)[:3])}",
        ) from error
    except Exception as error:  # wrong shapes raise errors of many types
        raise WeightsError(
            f"'{name}' resembles a network of spandrel but does not fit it: {first_line(error)}",
            hint="download the file again, or use another network",
        ) from error
    architecture, needs = found.architecture.name, found.size_requirements
    squares = ", squares only" * needs.square
    channels = (found.input_channels, found.output_channels)
    if (
        found.purpose not in ("SR", "Restoration")
        or channels not in ((1, 1), (3, 3))
        or needs.square
    ):
        raise WeightsError(
            f"'{name}' is a {architecture} network, which does not restore whole pictures: "
            f"{found.purpose}, {channels[0]} to {channels[1]} channels{squares}",
            hint="use a network for RGB pictures",
        )
    network = SpandrelNetwork(found).eval()
    size = SizeRequirement(needs.multiple_of, max(needs.minimum, needs.multiple_of))
    supported = found.tiling.name == "SUPPORTED"
    half = [torch.float16] * found.supports_half + [torch.bfloat16] * found.supports_bfloat16
    try:
        bytes_per_pixel = _bytes_per_pixel(network, size)
    except Exception as error:
        raise WeightsError(
            f"'{name}' was recognised as {architecture} but does not run: {type(error).__name__}",
            hint="download the file again, or use another network",
        ) from error
    model = Model(
        name=f"spandrel-{found.architecture.id.lower()}",
        task=f"x{found.scale} super-resolution" if found.scale > 1 else "restoration",
        scale=found.scale,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=0,
        paper=f"{architecture}, see github.com/chaiNNer-org/spandrel",
        code_license="see the paper's repository",
        configs={},
        build=lambda _: network,
        detect=lambda _: False,
        infer_config=lambda _: None,
        bytes_per_pixel=lambda _: bytes_per_pixel,
        size=size,
        tiling=Tiling.SUPPORTED if supported else Tiling.DISCOURAGED,
        tiling_note="" if supported else f"{architecture} uses the whole picture",
        dtypes=(torch.float32, *half),
    )
    return model, SpandrelConfig(architecture, tuple(found.tags)), network


def add_to_spandrel(registry: ArchRegistry | None = None) -> list[str]:
    """Add our networks to a registry of spandrel, by default the one that its loaders use.

    Their statistics stay global there, since a state dict has no training size: whole pictures are
    restored as by the authors' code, and tiling is discouraged.

    Returns:
        The added architectures, `restore-` and the model's name; empty if they were added before.

    Raises:
        WeightsError: spandrel is not installed or cannot be imported.
    """
    main, _, _ = _spandrel("restore's models cannot be registered")
    from spandrel import (  # noqa: PLC0415  an extra
        Architecture,
        ArchSupport,
        ImageModelDescriptor,
        ModelTiling,
        SizeRequirements,
    )

    class Ours(Architecture[nn.Module]):  # type: ignore[misc]
        def __init__(self, model: Model) -> None:
            super().__init__(id=f"restore-{model.name}", name=model.name, detect=model.detect)
            self.model = model

        def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[nn.Module]:
            model = self.model
            network = model.build(model.infer_config(state_dict))
            whole = any(isinstance(module, GlobalStatistic) for module in network.modules())
            return ImageModelDescriptor(
                network,
                state_dict,
                architecture=self,
                purpose="SR" if model.scale > 1 else "Restoration",
                tags=[],
                supports_half=torch.float16 in model.dtypes,
                supports_bfloat16=torch.bfloat16 in model.dtypes,
                scale=model.scale,
                input_channels=3,
                output_channels=3,
                size_requirements=SizeRequirements(model.size.minimum, model.size.multiple_of),
                tiling=ModelTiling.DISCOURAGED if whole else ModelTiling.SUPPORTED,
            )

    # Before spandrel's own: its MPRNet checks few keys, ours all relevant ones.
    first = tuple(one.architecture.id for one in main.architectures())
    ours = [ArchSupport.from_architecture(Ours(model), first) for model in MODELS.values()]
    added = (main if registry is None else registry).add(*ours, ignore_duplicates=True)
    return [str(one.architecture.id) for one in added]


def _spandrel(reason: str) -> tuple[ArchRegistry, Callable[[Any], Any], type[Exception]]:
    try:
        from spandrel import (  # noqa: PLC0415  an extra, and 2 s
            MAIN_REGISTRY,
            UnsupportedModelError,
            canonicalize_state_dict,
        )
    except ImportError as error:
        raise WeightsError(
            f"{reason} without spandrel, which is not installed", hint=_HINT
        ) from error
    except RuntimeError as error:  # torchvision built for another torch
        raise WeightsError(
            f"{reason}: spandrel cannot be imported ({error})",
            hint="install torchvision from the same index as torch",
        ) from error
    return MAIN_REGISTRY, canonicalize_state_dict, UnsupportedModelError


def _check_layers(state: StateDict, name: str) -> None:
    """Check names and shapes, since spandrel builds the network before it compares them."""
    numbers = [int(number) for key in state for number in re.findall(r"\d+", key)]
    if max(numbers, default=0) > _MAX_LAYER_NUMBER or any(
        tensor.numel() == 0 for tensor in state.values()
    ):
        raise WeightsError(
            f"'{name}' has too large or empty layers", hint="download the file again"
        )


def _bytes_per_pixel(network: nn.Module, size: SizeRequirement) -> int:
    """Estimate the bytes of memory per input pixel from the largest map for a small picture."""
    largest = 0

    def record(module: nn.Module, inputs: Any, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    handles = [module.register_forward_hook(record) for module in network.modules()]
    side = size.padded(_SAMPLE)
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, side, side))
    finally:
        for handle in handles:
            handle.remove()
    return max(1, _MAPS_ALIVE * largest // side**2)
