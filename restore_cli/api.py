"""The Python interface: one function, or a model that is loaded once and called often.

What comes in decides what comes out: a PIL picture gives a PIL picture of its mode, an array an
array of its type, a tensor a tensor of its type on its device.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.image.reading import fill_transparent
from restore_cli.inference.assemble import Line, assemble
from restore_cli.inference.cascade import (
    BICUBIC,
    Bicubic,
    Cascade,
    Stage,
    bicubic_factor,
    own_scale,
    split_names,
    split_weights,
)
from restore_cli.inference.devices import get_device
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import Model
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import as_float, rounded
from restore_cli.weights.manifest import default_model
from restore_cli.weights.store import locate

Picture = TypeVar("Picture", Image.Image, NDArray[Any], Tensor)

_KEPT_MODES = ("RGB", "RGBA", "L", "LA")
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class LoadedModel:
    """A network with its weights, or several in a row. Threads may share it: calls take turns.

    Attributes:
        name: of the model, or of several, joined by +.
        scale: output pixels per input pixel, where none is asked for.
        weights: what was loaded, a line a network: name, sha256, device, TLSC window, overlap.
    """

    def __init__(self, name: str, line: Line) -> None:
        self.name = name
        self.scale = line.stage.scale
        self.weights = tuple(line.describe())
        self._line = line
        self._turn = threading.Lock()

    def __call__(self, image: Picture, *, scale: int | None = None) -> Picture:
        """Restore one picture, or a batch of tensors.

        Args:
            image: a PIL picture; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
                uint16 or float in [0, 1]; a tensor (3, H, W) or (B, 3, H, W) of uint8 or float in
                [0, 1]. Values are taken as sRGB; a profile in a PIL picture is passed on, not
                applied. A PIL picture is turned upright as its EXIF says. A fourth channel is
                transparency, and enlarged by bicubic.
            scale: output pixels per input pixel, by bicubic from what the network gives; None for
                the network's own.

        Returns:
            The same kind and type as the image, `scale` times as wide and high.

        Raises:
            UsageError: an image of another kind, shape or type.
            DeviceError: out of memory.
            PictureError: the network's output is not finite.
        """
        factor = self.scale if scale is None else scale
        if factor < 1:
            raise UsageError(f"scale {scale} is not a factor", hint="1 or more")
        if isinstance(image, Image.Image):
            return self._picture(image, factor)
        if isinstance(image, Tensor):
            return self._tensor(image, factor)
        if isinstance(image, np.ndarray):
            return self._array(image, factor)
        raise UsageError(
            f"a {type(image).__name__} is not a picture",
            hint="give a PIL picture, a numpy array or a torch tensor",
        )

    def _picture(self, image: Image.Image, scale: int) -> Image.Image:
        image = ImageOps.exif_transpose(image)
        mode = image.mode
        if mode in ("1", "P"):  # they cannot hold what lies between their values
            has_alpha = "transparency" in image.info
            mode = "RGBA" if has_alpha else "L" if mode == "1" else "RGB"
            image = image.convert(mode)
        if mode not in _KEPT_MODES:
            raise UsageError(
                f"a picture of mode {mode} is not known",
                hint=f"convert it to one of {', '.join(_KEPT_MODES)}",
            )
        values = np.asarray(image)
        if mode == "LA":
            values = values[..., [0, 0, 0, 1]]
        restored = self._array(values, scale)
        if mode == "LA":
            restored = np.ascontiguousarray(restored[..., [0, 3]])
        result = Image.fromarray(restored, mode)
        result.info |= {k: v for k, v in image.info.items() if k in ("icc_profile", "dpi")}
        return result

    def _array(self, values: NDArray[Any], scale: int) -> NDArray[Any]:
        channels = values.shape[2] if values.ndim == 3 else 1
        if values.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in values.shape:
            raise UsageError(
                f"an array of shape {values.shape} is not a picture",
                hint="(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)",
            )
        depth = {"uint8": 8, "uint16": 16}.get(values.dtype.name)
        if depth is None and values.dtype.kind != "f":
            raise UsageError(
                f"an array of {values.dtype} is not a picture", hint="uint8, uint16, or float"
            )
        own = np.require(values, requirements=("C", "W")).reshape(*values.shape[:2], channels)
        given = torch.from_numpy(own if depth else own.astype(np.float32)).permute(2, 0, 1)[None]
        planes = as_float(given) if depth else given
        colours = planes[:, :3].expand(-1, 3, -1, -1).contiguous()
        if channels == 4:
            colours = fill_transparent(colours, planes[:, 3:])
        restored = self._restore(colours, scale)
        if channels == 1:
            restored = restored.mean(1, keepdim=True)
        if channels == 4:
            height, width = restored.shape[-2:]
            alpha = resize_bicubic(planes[:, 3:], height, width).clamp(0, 1)
            restored = torch.cat([restored, alpha], 1)
        whole = rounded(restored, depth) if depth else restored
        made = np.ascontiguousarray(whole[0].permute(1, 2, 0).numpy())
        return (made[..., 0] if values.ndim == 2 else made).astype(values.dtype, copy=False)

    def _tensor(self, image: Tensor, scale: int) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
            raise UsageError(
                f"a tensor of shape {tuple(image.shape)} is not a picture",
                hint="(3, H, W) or (B, 3, H, W)",
            )
        eight_bits = image.dtype == torch.uint8
        if not eight_bits and not image.is_floating_point():
            raise UsageError(f"a tensor of {image.dtype} is not a picture", hint="uint8, or float")
        batch = image.detach().cpu().reshape(-1, *image.shape[-3:])
        batch = as_float(batch) if eight_bits else batch.float()
        made = torch.cat([self._restore(one[None].contiguous(), scale) for one in batch])
        made = rounded(made, 8) if eight_bits else made.to(image.dtype)
        return made.reshape(*image.shape[:-2], *made.shape[-2:]).to(image.device)

    def _stage(self, scale: int) -> Stage:
        """The networks; a bicubic among them enlarges to the scale that is asked for."""
        names = [fact.model for fact in self._line.facts]
        if BICUBIC not in names:
            return self._line.stage
        bicubic = Bicubic(bicubic_factor(names, scale))
        chosen = [bicubic if isinstance(one, Bicubic) else one for one in self._line.stages]
        return chosen[0] if len(chosen) == 1 else Cascade(chosen)

    def _restore(self, image: Tensor, scale: int) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> (1, 3, scale * H, scale * W) in [0, 1]."""
        if not image.isfinite().all():
            raise UsageError("the picture has values that are not finite")
        with self._turn:  # a restorer remembers where memory ran out
            restored = self._stage(scale)(image.clamp(0, 1))
        height, width = (side * scale for side in image.shape[-2:])
        if restored.shape[-2:] == (height, width):
            return restored
        return resize_bicubic(restored, height, width).clamp(0, 1)


def restore(
    image: Picture, model: str | None = None, scale: int | None = None, **options: Any
) -> Picture:
    """Restore one picture. The model is loaded at the first call and kept for the next.

    Args:
        image: see `LoadedModel.__call__`.
        model: see `load_model`; None for the default one of the scale.
        scale: see `LoadedModel.__call__`.
        **options: see `load_model`.

    Returns:
        The same kind and type as the image, `scale` times as wide and high.

    Raises:
        RestoreError: see `load_model` and `LoadedModel.__call__`.
    """
    if model is None and not options.get("weights"):
        model = default_model(scale)
    return _kept(model, **options)(image, scale=scale)


def load_model(
    model: str | None = None,
    *,
    weights: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    tlsc: bool | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    self_ensemble: bool = False,
) -> LoadedModel:
    """Load a model, as `restore image` does.

    Args:
        model: a name of `list_models`, `bicubic`, or several in a row, joined by +; None for that
            of the weights, or where there are none for the default one.
        weights: a name, a path, or hf://OWNER/NAME/FILE; None for the model's default ones. They
            are verified, and nothing in them is executed.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, fp16 or bf16.
        tlsc: local statistics; None for what the weights say.
        tile: longest side of a tile in input pixels; None for automatic, 0 for none.
        overlap: of tiles in input pixels; None for the measured one.
        self_ensemble: mean of the eight flips and transpositions, eight times slower.

    Raises:
        UsageError: an unknown name, or options that do not fit.
        WeightsError: weights that are missing, cannot be verified or do not fit.
        DeviceError: the device is not there.
    """
    if precision not in _PRECISIONS:
        raise UsageError(f"precision '{precision}' is not known", hint=", ".join(_PRECISIONS))
    first = None
    if model is None and weights is not None:
        first = load_network(locate(weights, None))
        model = first.model.name
        names: tuple[str, ...] = (model,)
    else:
        names = split_names(model or default_model())
    chosen = RestorerOptions(
        device=get_device(device),
        dtype=_PRECISIONS[precision],
        tlsc=tlsc,
        tile=tile,
        overlap=overlap,
        self_ensemble=self_ensemble,
    )
    files = split_weights(names, weights)
    scale = first.model.scale if first else own_scale(names)
    line = assemble(names, files, chosen, scale, first)
    return LoadedModel("+".join(names), line)


def list_models() -> Mapping[str, Model]:
    """What can be loaded, by name: task, scale, size, paper, configs."""
    return MODELS


_kept = lru_cache(maxsize=4)(load_model)
