"""gfn: gated fusion network for joint motion deblurring and x4 super-resolution.

Paper: X. Zhang et al., "Gated Fusion Network for Joint Image Deblurring and Super-Resolution",
BMVC 2018 (arXiv:1807.10806).
Code: written from a description of the published network; no line of the authors' is used.
Apache-2.0. Where paper and published network differ, the network is followed: ReLU in the
deblurring and reconstruction blocks, 3x3 last convolutions, a gate without sigmoid. The authors
changed the network after August 2018; both are here.

Data flow, (B, C, H, W) with H, W of the input:

    deblurring   conv 7x7, two halvings, residual blocks at each size, two doublings -> features
    super-res.   conv 7x7, residual blocks -> features
    gate         both features and the image -> weight of the deblurring features
    reconstruct  super-res. features + gate * deblurring features -> residual blocks -> x4 -> image

The paper's ablations are configs. The text does not fully describe how their parts are joined. Here
a module in series passes on its image, through the same layers; `image-fusion` has both branches,
and adds a 3x3 convolution of the small deblurred image instead of features.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.errors import WeightsError
from restore_cli.models.layers import (
    LearnedInterpolation,
    ResidualBlock,
    Upscaler4x,
    add_inplace,
    conv,
    select_outputs,
    zero_init,
)
from restore_cli.models.spec import Model, PublishedFormat, SizeRequirement, StateDict
from restore_cli.models.state_dict import count_blocks, rename_keys

SLOPE = 0.2  # slope of every LeakyReLU except the one after the first pixel shuffle
FEATURES, IMAGE, BEFORE, AFTER = range(4)  # arrangements of the deblurring module


@dataclass(frozen=True, slots=True)
class GfnConfig:
    """Shape of the network; the defaults are the published one (12,210,438 parameters)."""

    width: int = 64  # channels at full size; doubled with each halving
    deblur_blocks: int = 6  # residual blocks per size; 0: no deblurring module
    sr_blocks: int = 8
    fusion_blocks: int = 8
    august_2018: bool = False  # as first published: 12,216,582 parameters, other activations
    image_skip: bool = False  # add the interpolated input; not published
    gate: bool = True  # needs both branches in parallel
    arrangement: int = FEATURES  # what is added, or where the deblurring module is in series


def _blocks(count: int, width: int, slope: float) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, slope) for _ in range(count)))


def _first_slope(config: GfnConfig) -> float:
    """Return the slope of the LeakyReLU after a branch's first convolution; 1 for no activation."""
    return 1.0 if config.august_2018 else SLOPE


class Deblurring(nn.Module):
    """Encoder and decoder on the small image; its image is for the loss only."""

    def __init__(self, config: GfnConfig) -> None:
        super().__init__()
        w = config.width
        self.first = conv(3, w, 7, bias=True)
        self.first_slope = _first_slope(config)
        self.blocks = nn.ModuleList(_blocks(config.deblur_blocks, w << n, 0.0) for n in range(3))
        self.downs = nn.ModuleList(
            nn.Conv2d(w << n, w << (n + 1), 3, stride=2, padding=1) for n in range(2)
        )
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(w << (n + 1), w << n, 4, stride=2, padding=1) for n in (1, 0)
        )
        self.last = conv(w, w, 7, bias=True)
        self.image1 = conv(w, w, 3, bias=True)
        self.image2 = conv(w, 3, 3, bias=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, H, W) to output features and shallow features, both (B, C, H, W)."""
        shallow = x = F.leaky_relu_(self.first(image), self.first_slope)
        x = add_inplace(x, self.blocks[0](x))
        for down, blocks in zip(self.downs, list(self.blocks)[1:], strict=True):
            x = F.relu_(down(x))
            x = add_inplace(x, blocks(x))
        for up in self.ups:
            x = F.relu_(up(x))
        return self.last(x), shallow

    def image(self, features: Tensor, shallow: Tensor) -> Tensor:
        """Map output and shallow features, (B, C, H, W), to the deblurred image (B, 3, H, W)."""
        return self.image2(F.relu_(self.image1(features + shallow)))

    def restore(self, image: Tensor) -> Tensor:
        """Map an image (B, 3, H, W) to the deblurred one, for modules in series."""
        return self.image(*self(image))


class Features(nn.Module):
    """Super-resolution features of the small image."""

    def __init__(self, config: GfnConfig) -> None:
        super().__init__()
        self.first = conv(3, config.width, 9 if config.august_2018 else 7, bias=True)
        self.first_slope = _first_slope(config)
        self.blocks = _blocks(config.sr_blocks, config.width, SLOPE)
        self.last = conv(config.width, config.width, 3, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (B, 3, H, W) to features (B, C, H, W)."""
        shallow = F.leaky_relu_(self.first(image), self.first_slope)
        return add_inplace(shallow, self.last(self.blocks(shallow)))


class Gate(nn.Module):
    """Weight of each value of the deblurring features, unbounded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv(2 * width + 3, width, 3, bias=True)
        self.conv2 = conv(width, width, 1, bias=True)

    def forward(self, deblurring: Tensor, image: Tensor, features: Tensor) -> Tensor:
        """Map features, image, features, each (B, C or 3, H, W), to weights (B, C, H, W)."""
        x = torch.cat([deblurring, image, features], 1)
        return self.conv2(F.leaky_relu_(self.conv1(x), SLOPE))


class Gfn(nn.Module):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 4."""

    def __init__(self, config: GfnConfig) -> None:
        """Raise a `ValueError` for an unknown arrangement, or a gate without parallel branches."""
        super().__init__()
        parallel = config.arrangement in (FEATURES, IMAGE)
        if not FEATURES <= config.arrangement <= AFTER:
            raise ValueError(f"gfn has no arrangement {config.arrangement}")
        if config.gate and not (parallel and config.deblur_blocks):
            raise ValueError("gfn's gate needs deblur_blocks > 0 and arrangement 0 or 1")

        def deblurring(*arrangements: int) -> Deblurring | None:
            exists = config.deblur_blocks and config.arrangement in arrangements
            return Deblurring(config) if exists else None

        # Three names, so that the state dict shows how the module is arranged.
        self.deblurring = deblurring(FEATURES, IMAGE)
        self.before, self.after = deblurring(BEFORE), deblurring(AFTER)
        self.features = Features(config)
        self.gate = Gate(config.width) if config.gate else None
        slope, up1_slope = (SLOPE, SLOPE) if config.august_2018 else (0.0, 0.1)
        blocks = _blocks(config.fusion_blocks, config.width, slope)
        self.reconstruction = Upscaler4x(config.width, blocks, up1_slope)
        lifted = self.deblurring is not None and config.arrangement == IMAGE
        self.lift = conv(3, config.width, 3, bias=True) if lifted else None
        self.interpolation = LearnedInterpolation(4) if config.image_skip else None
        if config.image_skip:
            zero_init(self.after.image2 if self.after else self.reconstruction.image)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (B, 3, H, W) to (B, 3, 4H, 4W), unclamped, without auxiliary images."""
        return self.outputs(image, ("restored",))["restored"]

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to `restored`, `ungated` (without the gate), and `deblurred`.

        `deblurred` is of the input's size, and exists if the network deblurs the small image.
        """
        small, makers = image, {}
        branch: tuple[Tensor, Tensor] | None = None
        if self.before is not None:
            small = self.before.restore(image)
            makers["deblurred"] = lambda: small
        if self.deblurring is not None:
            module, branch = self.deblurring, self.deblurring(image)
            makers["deblurred"] = lambda: module.image(*branch)
        makers |= {
            "restored": lambda: self._restore(image, small, branch, self.gate),
            "ungated": lambda: self._restore(image, small, branch, None),
        }
        return select_outputs(makers, wanted)

    def _restore(
        self, image: Tensor, small: Tensor, branch: tuple[Tensor, Tensor] | None, gate: Gate | None
    ) -> Tensor:
        """Run everything after the deblurring of the small image."""
        restored: Tensor = self.reconstruction(self._fuse(image, small, branch, gate))
        if self.after is not None:
            restored = self.after.restore(restored)
        if self.interpolation is not None:
            restored = add_inplace(restored, F.pixel_shuffle(self.interpolation(image), 4))
        return restored

    def _fuse(
        self, image: Tensor, small: Tensor, branch: tuple[Tensor, Tensor] | None, gate: Gate | None
    ) -> Tensor:
        """Return the features of the small image, with the gated ones of the deblurring branch."""
        features: Tensor = self.features(small)
        if self.deblurring is None or branch is None:
            return features
        deblurring = branch[0]
        if self.lift is not None:
            deblurring = self.lift(self.deblurring.image(*branch))
        if gate is not None:
            deblurring = gate(deblurring, image, features) * deblurring
        return features + deblurring


def _infer_config(state: StateDict) -> GfnConfig:
    module = next((m for m in ("deblurring", "before", "after") if f"{m}.last.weight" in state), "")
    lifted = IMAGE if "lift.weight" in state else FEATURES
    return GfnConfig(
        width=state["features.last.weight"].shape[0],
        deblur_blocks=count_blocks(state, f"{module}.blocks.0") if module else 0,
        sr_blocks=count_blocks(state, "features.blocks"),
        fusion_blocks=count_blocks(state, "reconstruction.blocks"),
        august_2018=state["features.first.weight"].shape[-1] == 9,
        image_skip="interpolation.phases.weight" in state,
        gate="gate.conv1.weight" in state,
        arrangement={"before": BEFORE, "after": AFTER}.get(module, lifted),
    )


_OFFICIAL_NAMES = (
    (r"\.layers\.0\.", ".conv1."),
    (r"\.layers\.2\.", ".conv2."),
    (r"^deblurMoudle\.0\.conv1\.", "deblurring.first."),
    (
        r"^deblurMoudle\.0\.resBlock(\d)\.",
        lambda match: f"deblurring.blocks.{int(match[1]) - 1}.",
    ),
    (r"^deblurMoudle\.0\.conv2\.0\.", "deblurring.downs.0."),
    (r"^deblurMoudle\.0\.conv3\.0\.", "deblurring.downs.1."),
    (r"^deblurMoudle\.0\.deconv1\.0\.", "deblurring.ups.0."),
    (r"^deblurMoudle\.0\.deconv2\.0\.", "deblurring.ups.1."),
    (r"^deblurMoudle\.0\.deconv2\.2\.", "deblurring.last."),
    (r"^deblurMoudle\.0\.convout\.0\.", "deblurring.image1."),
    (r"^deblurMoudle\.0\.convout\.2\.", "deblurring.image2."),
    (r"^srMoudle\.0\.conv1\.", "features.first."),
    (r"^srMoudle\.0\.resBlock\.", "features.blocks."),
    (r"^srMoudle\.0\.conv2\.", "features.last."),
    (r"^geteMoudle\.0\.", "gate."),
    (r"^reconstructMoudle\.0\.resBlock\.", "reconstruction.blocks."),
    (r"^reconstructMoudle\.0\.conv1\.", "reconstruction.up1."),
    (r"^reconstructMoudle\.0\.conv2\.", "reconstruction.up2."),
    (r"^reconstructMoudle\.0\.conv3\.", "reconstruction.conv."),
    (r"^reconstructMoudle\.0\.conv4\.", "reconstruction.image."),
)


def _from_august_2018(state: StateDict) -> dict[str, Tensor]:
    """Put the first published network's parameters under our names.

    Only the names of its parts and the shapes inside them are known. Inside a part, layers of the
    same shape are assigned in the order in which the network uses them. Tensors that do not match
    keep their names, which the importer reports.
    """
    if list(state) == sorted(state):
        raise WeightsError(
            "the layers of this GFN of August 2018 are sorted by name, but their original order "
            "is needed",
            hint="import the authors' original file",
        )
    parts = {
        "ednet.": "deblurring.",
        "residual1.": "features.blocks.",
        "residual2.": "reconstruction.blocks.",
        "attention_model.": "gate.",
        "upscale4x.": "reconstruction.up",
        "conv_output.": "reconstruction.",
        "": "features.",  # the branch's first and last convolution
    }
    width = next((t.shape[0] for t in state.values() if t.shape[-2:] == (9, 9)), 64)
    with torch.device("meta"):
        network = Gfn(GfnConfig(width=width, august_2018=True))
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    result: dict[str, Tensor] = {}
    left = dict(state)
    for theirs, ours in parts.items():
        layers = [key for key in left if key.startswith(theirs) and key.endswith(".weight")]
        for name in (n for n in wanted if n.startswith(ours) and n.endswith(".weight")):
            fits = (key for key in layers if key in left and left[key].shape == wanted[name])
            if name in result or (key := next(fits, None)) is None:
                continue
            for kind in (".weight", ".bias"):
                old, new = (text.removesuffix(".weight") + kind for text in (key, name))
                if old in left:
                    result[new] = left.pop(old)
    gate = result.get("gate.conv1.weight")
    if gate is None:
        raise WeightsError("the weights are a GFN of August 2018, but lack its gate")
    # The authors concatenate image, deblurring, features; here it is deblurring, image, features.
    image, deblurring, features = torch.split(gate, [3, width, width], 1)
    result["gate.conv1.weight"] = torch.cat([deblurring, image, features], 1)
    return result | left


GFN = Model(
    name="gfn",
    task="motion deblurring and x4 super-resolution",
    scale=4,
    parameters=12_210_438,
    macs=17_612_144_640,
    paper="arXiv:1807.10806",
    code_license="Apache-2.0",
    configs={
        "paper": GfnConfig(),
        "august-2018": GfnConfig(august_2018=True),
        "no-gate": GfnConfig(gate=False),
        "sr-alone": GfnConfig(gate=False, deblur_blocks=0),
        "deblurring-first": GfnConfig(gate=False, arrangement=BEFORE),
        "sr-first": GfnConfig(gate=False, arrangement=AFTER),
        "image-fusion": GfnConfig(gate=False, arrangement=IMAGE),
        "lite": GfnConfig(width=32, deblur_blocks=2, sr_blocks=2, fusion_blocks=2, image_skip=True),
    },
    build=Gfn,
    detect=lambda state: {"features.last.weight", "reconstruction.up2.weight"} <= set(state),
    infer_config=_infer_config,
    # In maps of `width` channels at the input's size; measured growth of the process: 18 (paper,
    # 512x512), 40 and 16 (lite, 512x512 and 1024x1024); 67 with sr-first (192x192).
    bytes_per_pixel=lambda config: 4 * (80 if config.arrangement == AFTER else 28) * config.width,
    # 12 megapixels at x4 take 2.2 to 2.4 GB; in tiles of up to 1024 2.1 to 2.8, in 0.92 of the
    # time.
    largest_tile=768,
    size=SizeRequirement(multiple_of=4),
    published=(
        PublishedFormat(
            name="GFN_4x, current",
            recognises=lambda state: "geteMoudle.0.conv1.weight" in state,
            convert=partial(rename_keys, rules=_OFFICIAL_NAMES),
            train_size=(64, 64),
        ),
        PublishedFormat(
            name="GFN_4x, August 2018",
            recognises=lambda state: any(key.startswith("attention_model.") for key in state),
            convert=_from_august_2018,
            train_size=(64, 64),
        ),
    ),
    tiny=GfnConfig(width=8, deblur_blocks=1, sr_blocks=1, fusion_blocks=1),
    tiny_changes={"arrangement": IMAGE},
)
