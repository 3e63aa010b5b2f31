"""Networks of others, through spandrel; and ours, for those who use spandrel.

spandrel (MIT) knows some forty published architectures by their keys: ESRGAN, NAFNet, SwinIR, HAT,
... A file of theirs becomes a `Model` like any other, with what spandrel says of
its scale and sizes, and runs through the same line: tiles, alpha, 16 bits, batches. It has no
global statistics that this package could make local.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from restore_cli.errors import WeightsError
from restore_cli.models.layers import GlobalStatistic
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import Model, SizeRequirement, StateDict, Tiling

if TYPE_CHECKING:
    from spandrel import ArchRegistry, ImageModelDescriptor

_HINT = "pip install 'restore-cli[zoo]'"
_MOST = 5000  # number in a layer's name; real networks stay below a few hundred
_SAMPLE = 64  # side of the picture that memory is measured on
# Of the largest map; a guess, not measured. The automatic tile takes half of the free memory only.
_MAPS_ALIVE = 4


@dataclass(frozen=True, slots=True)
class SpandrelConfig:
    """What spandrel found out about a file.

    Attributes:
        architecture: its name there.
        tags: sizes and variants, for people.
    """

    architecture: str
    tags: tuple[str, ...]


class SpandrelNetwork(nn.Module):
    """A network of spandrel's under our calling convention."""

    def __init__(self, found: ImageModelDescriptor[Any]) -> None:
        super().__init__()
        self.network = found.model
        self.found = found

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, scale * H, scale * W) in [0, 1].

        A network of one channel takes the three one by one; spandrel takes one picture at a time.
        """
        channels = self.found.input_channels
        pictures = image.reshape(-1, channels, *image.shape[-2:])
        restored = torch.cat([self.found(picture[None]) for picture in pictures])
        return restored.reshape(image.shape[0], 3, *restored.shape[-2:])


def recognise(state: StateDict, name: str) -> tuple[Model, SpandrelConfig, nn.Module]:
    """The network that a state dict of none of our models is of, weights loaded.

    Args:
        state: named tensors.
        name: of the file, for messages.

    Raises:
        WeightsError: spandrel is not installed or does not import, does not know the network, or
            it is not one that takes an RGB or grey picture of any shape and gives one.
    """
    registry, canonicalise, unsupported = _spandrel(name)
    _refuse_absurd(state, name)
    try:
        found = registry.load(canonicalise(dict(state)))
    except unsupported as error:
        raise WeightsError(
            f"'{name}' is of no network that restore or spandrel knows",
            hint=f"first keys: {', '.join(sorted(state)[:3])}",
        ) from error
    except Exception as error:  # whatever a network makes of shapes that are not its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(f"'{name}' does not fit the network it looks like: {reason}") from error
    squares = ", squares only" * found.size_requirements.square
    architecture, needs = found.architecture.name, found.size_requirements
    channels = (found.input_channels, found.output_channels)
    if (
        found.purpose not in ("SR", "Restoration")
        or channels not in ((1, 1), (3, 3))
        or needs.square
    ):
        raise WeightsError(
            f"'{name}' is of {architecture}, which does not restore whole pictures: "
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
            f"'{name}', taken for {architecture}, does not run: {type(error).__name__}",
            hint="fetch the file again, or use another network",
        ) from error
    model = Model(
        name=f"spandrel-{found.architecture.id.lower()}",
        task=f"x{found.scale} super-resolution" if found.scale > 1 else "restoration",
        scale=found.scale,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=0,
        paper=f"{architecture}, see github.com/chaiNNer-org/spandrel",
        code_license="see the paper's repository",
        config_type=SpandrelConfig,
        configs={},
        build=lambda _: network,
        detect=lambda _: False,
        infer_config=lambda _: None,
        bytes_per_pixel=lambda _: bytes_per_pixel,
        size=size,
        tiling=Tiling.SUPPORTED if supported else Tiling.DISCOURAGED,
        tiling_note="" if supported else f"{architecture} looks at the whole picture",
        dtypes=(torch.float32, *half),
    )
    return model, SpandrelConfig(architecture, tuple(found.tags)), network


def add_to_spandrel(registry: ArchRegistry | None = None) -> list[str]:
    """Let spandrel's loaders recognise our networks, too.

    Their statistics stay global there, since a state dict does not tell its training size: whole
    pictures are restored as the authors' code would, and tiles are discouraged.

    Args:
        registry: of spandrel; None for its main one.

    Returns:
        The architectures that were added: `restore-` and the model's name. None, if they were
        there.

    Raises:
        WeightsError: spandrel is not installed or does not import.
    """
    main, _, _ = _spandrel("spandrel")
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

    # Before spandrel's own: its MPRNet detects by a few keys, ours by all that matter.
    first = tuple(one.architecture.id for one in main.architectures())
    ours = [ArchSupport.from_architecture(Ours(model), first) for model in MODELS.values()]
    added = (main if registry is None else registry).add(*ours, ignore_duplicates=True)
    return [str(one.architecture.id) for one in added]


def _spandrel(name: str) -> tuple[ArchRegistry, Callable[[Any], Any], type[Exception]]:
    try:
        from spandrel import (  # noqa: PLC0415  an extra, and 2 s
            MAIN_REGISTRY,
            UnsupportedModelError,
            canonicalize_state_dict,
        )
    except ImportError as error:
        raise WeightsError(
            f"'{name}' is of none of restore's own models; others need spandrel", hint=_HINT
        ) from error
    except RuntimeError as error:  # torchvision of another build than torch
        raise WeightsError(
            f"spandrel cannot be imported: {error}",
            hint="install torchvision from the same index as torch",
        ) from error
    return MAIN_REGISTRY, canonicalize_state_dict, UnsupportedModelError


def _refuse_absurd(state: StateDict, name: str) -> None:
    """Look at names and shapes, since spandrel builds what they claim before it compares."""
    claims = [int(number) for key in state for number in re.findall(r"\d+", key)]
    if max(claims, default=0) > _MOST or any(tensor.numel() == 0 for tensor in state.values()):
        raise WeightsError(f"'{name}' claims layers that it does not hold", hint="fetch it again")


def _bytes_per_pixel(network: nn.Module, size: SizeRequirement) -> int:
    """Memory per input pixel, from the largest map that a small picture makes."""
    largest = 0

    def see(module: nn.Module, inputs: Any, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    handles = [module.register_forward_hook(see) for module in network.modules()]
    side = size.padded(_SAMPLE)
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, side, side))
    finally:
        for handle in handles:
            handle.remove()
    return max(1, _MAPS_ALIVE * largest // side**2)
