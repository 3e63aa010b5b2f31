"""The Python interface: one function, or a model that is loaded once and called often.

The result has the kind of the input: a PIL picture of the same mode, an array of the same dtype, a
tensor of the same dtype on the same device, or a list. A path gives a PIL picture in sRGB.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.formatting import for_python
from restore_cli.image import read_image
from restore_cli.image.raw_metadata import BROKEN
from restore_cli.image.reading import fill_transparent
from restore_cli.inference.devices import get_device, get_precision
from restore_cli.inference.memory import memory_errors
from restore_cli.inference.pipeline import Pipeline, PipelineSpec
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.stages import ProgressCallback, no_progress
from restore_cli.jobs.request import RestoreRequest
from restore_cli.jobs.run import OnTile, Outcome
from restore_cli.jobs.session import Summary, run
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import Model
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import check_range, to_float, to_uint
from restore_cli.weights.manifest import default_model
from restore_cli.weights.store import RUN_WEIGHTS_FILES

Picture = TypeVar("Picture", Image.Image, NDArray[Any], Tensor, list[Any])
Device = str | torch.device
Name = str | PathLike[str]

_KEPT_MODES = ("RGB", "RGBA", "L", "LA")
_EXPANDED_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
_PACKAGE = f"{__name__.partition('.')[0]}."
_loading = threading.Lock()


class Options(TypedDict, total=False):
    """The options of `load_model`."""

    weights: Name | None
    device: Device
    precision: str
    tlsc: bool | int | None
    tile: int | None
    overlap: int | None
    self_ensemble: bool


class LoadedModel:
    """A network with its weights, or a chain of several networks.

    Thread-safe: calls from several threads run one after the other. To work in parallel, load one
    model per thread, each on its own device.

    Attributes:
        name: name of the model; the names of a chain are joined by +.
        scale: output pixels per input pixel, unless a call sets another.
        weights: one line per network: name, sha256, device, TLSC window, overlap.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.name = pipeline.spec.name
        self.scale = pipeline.scale
        self.weights = tuple(pipeline.describe())
        self._pipeline = pipeline
        self._turn = threading.RLock()  # a callback may call the model, e.g. for a preview

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self._pipeline.spec,)  # another process loads it anew

    def __repr__(self) -> str:
        names = "+".join(stage.weights or "none" for stage in self._pipeline.stages)
        device = self._pipeline.options.device
        return f"<LoadedModel {self.name} x{self.scale}, weights {names}, on {device}>"

    @overload
    def __call__(
        self, image: Name, *, scale: int | None = None, progress: ProgressCallback | None = ...
    ) -> Image.Image: ...
    @overload
    def __call__(
        self, image: Picture, *, scale: int | None = None, progress: ProgressCallback | None = ...
    ) -> Picture: ...
    def __call__(
        self, image: Any, *, scale: int | None = None, progress: ProgressCallback | None = None
    ) -> Any:
        """Restore one picture, a batch, or a list of pictures.

        Args:
            image: a PIL picture; the path of one; an array (H, W), (H, W, 1), (H, W, 3) or
                (H, W, 4), or a batch (N, H, W, C) of them, of uint8, uint16 or float in [0, 1]; a
                tensor (3, H, W) or (B, 3, H, W) of uint8 or float in [0, 1]; or a list of any of
                these. Values are taken as sRGB; the profile of a PIL picture is copied, not
                applied. Files are read as `restore image` reads them: profiles and CMYK are
                converted to sRGB, and 16 bits go into the network. A PIL picture is turned upright
                by its EXIF orientation. A second or fourth channel is transparency; it is resized
                by bicubic interpolation.
            scale: output pixels per input pixel; the network's output is resized by bicubic
                interpolation. None for the network's own scale.
            progress: called with (finished tiles, all tiles) of the current picture.

        Returns:
            The same kind and type as the image, `scale` times as wide and high.

        Raises:
            UsageError: an image of an unsupported kind, shape, dtype or value range.
            DeviceError: out of memory.
            PictureError: a file that is not a picture, or the network's output is not finite.
            BaseException: whatever `progress` raises; running out of memory there is handled like
                running out of memory in the network.
        """
        factor = self._factor(scale)
        with _messages_for_python(), torch.autocast("cpu", enabled=False):
            return self._any(image, factor, progress or no_progress)

    def restore_files(
        self,
        request: RestoreRequest,
        on_outcome: Callable[[Outcome], Any] = lambda outcome: None,
        *,
        scale: int | None = None,
        report: OnTile = lambda item, done, tiles: None,
        fail_fast: bool = False,
    ) -> Summary:
        """Restore files into files, as `restore image` does: profiles, metadata, 16 bits.

        Args:
            request: which files to restore, where to write them, and how to encode them.
            on_outcome: called with the outcome of each picture.
            scale: output pixels per input pixel; None for the network's own.
            report: called with (item, finished tiles, all tiles) of the current picture.
            fail_fast: whether the first failure ends the run.

        Raises:
            UsageError: the scale is below 1.
            RestoreError: the run cannot start. A picture that fails is reported as an outcome.
        """
        factor = self._factor(scale)
        with self._turn, _messages_for_python(), torch.autocast("cpu", enabled=False):
            pipeline = self._pipeline.to_scale(factor)
            return run(request, pipeline, on_outcome, report=report, fail_fast=fail_fast)

    def _factor(self, scale: int | None) -> int:
        if scale is None:
            return self.scale
        if not isinstance(scale, Integral) or isinstance(scale, bool) or scale < 1:
            raise UsageError(
                f"scale {scale!r} is not possible", hint="use a whole number from 1 on"
            )
        return int(scale)

    def _any(self, image: Any, scale: int, progress: ProgressCallback) -> Any:
        if isinstance(image, list | tuple):
            return [self._any(one, scale, progress) for one in image]
        if isinstance(image, str | PathLike):
            if not fspath(image):
                raise UsageError("the path is empty", hint="give the path of a picture")
            if "://" in fspath(image):
                raise UsageError(f"{image!r} is not the path of a file", hint="download it first")
            return self._file(Path(image), scale, progress)
        if isinstance(image, Image.Image):
            return self._picture(image, scale, progress)
        if isinstance(image, Tensor):
            return self._tensor(image, scale, progress)
        if isinstance(image, np.ndarray) and not isinstance(image, np.ma.MaskedArray):
            return self._array(np.asarray(image), scale, progress)  # of np.matrix, too
        raise UsageError(
            f"a {type(image).__name__} is not a picture",
            hint="give a path, a PIL picture, a numpy array, a torch tensor, or a list of them",
        )

    def _file(self, path: Path, scale: int, progress: ProgressCallback) -> Image.Image:
        """Restore a file to sRGB: 8 bits, or 16 if grey, since PIL has no 16-bit colour."""
        picture = read_image(path, icc="strip")
        for note in picture.notes:
            _warn(f"'{path}': {note}")
        deep = picture.depth == 16 and picture.grey and picture.alpha is None
        planes = [picture.pixels[:, : 1 if picture.grey else 3]]
        if picture.alpha is not None:
            planes.append(picture.alpha)
        values = torch.cat(planes, 1)[0].permute(1, 2, 0).numpy()
        result = torch.from_numpy(self._array(values, scale, progress)).permute(2, 0, 1)[None]
        if picture.out_of_gamut is not None:
            height, width = result.shape[-2:]
            result[:, :3] += resize_bicubic(picture.out_of_gamut, height, width)
        whole = to_uint(result, 16 if deep else 8)[0].permute(1, 2, 0).numpy()
        whole = whole[..., 0] if whole.shape[-1] == 1 else whole
        restored = Image.fromarray(np.ascontiguousarray(whole))
        if picture.metadata.dpi:
            restored.info["dpi"] = picture.metadata.dpi
        return restored

    def _picture(self, image: Image.Image, scale: int, progress: ProgressCallback) -> Image.Image:
        image = _upright(image)
        mode = image.mode
        kept: dict[Any, Any] = {k: image.info[k] for k in ("icc_profile", "dpi") if k in image.info}
        if mode.startswith("I;16"):
            if "transparency" in image.info:
                raise UsageError(
                    "a picture of mode I;16 with transparency is not supported",
                    hint="give its path, or an array (H, W, 4) of uint16",
                )
            deep = self._array(np.asarray(image).astype("=u2"), scale, progress)
            result = Image.fromarray(deep)
            result.info |= kept
            return result
        if mode in ("L", "RGB") and "transparency" in image.info:  # of one colour
            mode = "LA" if mode == "L" else "RGBA"
            image = image.convert(mode)
        if mode in _EXPANDED_MODES:  # they cannot store interpolated values
            mode = "RGBA" if "transparency" in image.info else _EXPANDED_MODES[mode]
            image = image.convert(mode)
        if mode not in _KEPT_MODES:
            whole = mode in ("I", "F")
            raise UsageError(
                f"a picture of mode {mode} is not supported",
                hint="scale numpy.asarray(image) to [0, 1]" if whole else 'image.convert("RGB")',
            )
        result = Image.fromarray(self._array(np.asarray(image), scale, progress), mode)
        result.info |= kept
        return result

    def _array(self, values: NDArray[Any], scale: int, progress: ProgressCallback) -> NDArray[Any]:
        if values.ndim == 4 and len(values):
            return np.stack([self._array(one, scale, progress) for one in values])
        channels = values.shape[2] if values.ndim == 3 else 1
        if values.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or 0 in values.shape:
            raise UsageError(
                f"an array of shape {values.shape} is not a picture",
                hint="(H, W), (H, W, C) or (N, H, W, C) with C from 1 to 4",
            )
        depth = {"uint8": 8, "uint16": 16}.get(values.dtype.name)
        if depth is None and values.dtype.kind != "f":
            raise UsageError(
                f"an array of {values.dtype} is not a picture", hint="uint8, uint16, or float"
            )
        native = values.dtype.newbyteorder("=")  # torch has no other byte order
        own = np.require(values, native, ("C", "W")).reshape(*values.shape[:2], channels)
        given = torch.from_numpy(own if depth else own.astype(np.float32)).permute(2, 0, 1)[None]
        planes = to_float(given) if depth else given
        check_range(planes)
        coloured = 3 if channels > 2 else 1
        colours, alpha = planes[:, :coloured], planes[:, coloured:]
        colours = colours.expand(-1, 3, -1, -1).contiguous()
        if alpha.numel():
            colours = fill_transparent(colours, alpha)
        restored = self._restore(colours, scale, progress)
        if coloured == 1:
            restored = restored.mean(1, keepdim=True)
        if alpha.numel():
            height, width = restored.shape[-2:]
            alpha = resize_bicubic(alpha, height, width).clamp(0, 1)
            restored = torch.cat([restored, alpha], 1)
        whole = to_uint(restored, depth) if depth else restored
        result = np.ascontiguousarray(whole[0].permute(1, 2, 0).numpy())
        return (result[..., 0] if values.ndim == 2 else result).astype(values.dtype, copy=False)

    def _tensor(self, image: Tensor, scale: int, progress: ProgressCallback) -> Tensor:
        if image.is_meta or image.is_nested or image.layout != torch.strided:
            raise UsageError("a sparse or meta tensor is not a picture", hint="image.to_dense()")
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
            raise UsageError(
                f"a tensor of shape {tuple(image.shape)} is not a picture",
                hint="(3, H, W) or (B, 3, H, W); .movedim(-1, -3) brings channels to the front",
            )
        eight_bits = image.dtype == torch.uint8
        if not eight_bits and not image.is_floating_point():
            raise UsageError(f"a tensor of {image.dtype} is not a picture", hint="uint8, or float")
        batch = image.detach().cpu().reshape(-1, *image.shape[-3:])
        batch = to_float(batch) if eight_bits else batch.float()
        check_range(batch)
        pictures = [self._restore(one[None].contiguous(), scale, progress) for one in batch]
        result = torch.cat(pictures)
        result = to_uint(result, 8) if eight_bits else result.to(image.dtype)
        return result.reshape(*image.shape[:-2], *result.shape[-2:]).to(image.device)

    def _restore(self, image: Tensor, scale: int, progress: ProgressCallback) -> Tensor:
        """Map (1, 3, H, W) in [0, 1] to (1, 3, scale * H, scale * W) in [0, 1]."""
        message = f"'{image.shape[-1]}x{image.shape[-2]} at x{scale}': out of memory"
        with self._turn, memory_errors(lambda: message):  # restorers are not thread-safe
            return self._pipeline.to_scale(scale)(image.clamp(0, 1), progress).clamp(0, 1)


@contextmanager
def _messages_for_python() -> Iterator[None]:
    """Name arguments of this interface in errors, instead of options of the command line."""
    try:
        yield
    except RestoreError as error:
        error.args = (for_python(str(error)),)
        error.hint = for_python(error.hint)
        raise


def _warn(message: str) -> None:
    """Warn about the line that called this package."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


@overload
def restore(
    image: Name,
    model: str | None = None,
    scale: int | None = None,
    *,
    progress: ProgressCallback | None = ...,
    **options: Unpack[Options],
) -> Image.Image: ...
@overload
def restore(
    image: Picture,
    model: str | None = None,
    scale: int | None = None,
    *,
    progress: ProgressCallback | None = ...,
    **options: Unpack[Options],
) -> Picture: ...
def restore(
    image: Any,
    model: str | None = None,
    scale: int | None = None,
    *,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> Any:
    """Restore a picture, or a list of them. The model is loaded at the first call and kept.

    Args:
        image: see `LoadedModel.__call__`.
        model: see `load_model`; None for the default model of the scale, or of x4 without one.
        scale: see `LoadedModel.__call__`.
        progress: called with (finished tiles, all tiles).
        **options: weights, device, precision, tlsc, tile, overlap, self_ensemble: see `load_model`.

    Returns:
        The same kind and type as the image, `scale` times as wide and high.

    Raises:
        RestoreError: see `load_model` and `LoadedModel.__call__`.
    """
    _check_types(model, **options)
    if model is None and options.get("weights") is None:
        model = default_model(scale)
    with _loading:  # else each thread would load it
        loaded = _kept(_stamp(options.get("weights")), model, **cast("dict[str, Any]", options))
    return loaded(image, scale=scale, progress=progress)


def load_model(
    model: str | None = None,
    *,
    weights: Name | None = None,
    device: Device = "auto",
    precision: str = "auto",
    tlsc: bool | int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    self_ensemble: bool = False,
) -> LoadedModel:
    """Load a model, as `restore image` does.

    Args:
        model: a name from `list_models`, `bicubic`, or several names joined by +; None for the
            model of the weights, or for the default model if no weights are given.
        weights: a name, a path, or hf://OWNER/NAME/FILE.safetensors@REVISION; None for the
            model's default weights. They are verified, and nothing in them is executed.
        device: auto, cpu, cuda, cuda:N or mps, or a device of torch.
        precision: auto (bf16 on CPUs that compute it faster, else fp32), fp32, bf16, or fp16 on
            GPUs.
        tlsc: whether to compute global statistics in local windows (TLSC), or the side of the
            window in input pixels; None for the checkpoint's setting.
        tile: longest side of a tile in input pixels; None for automatic, 0 for no tiles.
        overlap: overlap of tiles in input pixels; None for the checkpoint's.
        self_ensemble: whether to average over the eight flips and transpositions, which is eight
            times slower.

    Raises:
        UsageError: an unknown name, or options that do not fit.
        WeightsError: weights that are missing, cannot be verified or do not fit.
        DeviceError: the device is not available.
    """
    _check_types(
        model,
        weights=weights,
        device=device,
        precision=precision,
        tile=tile,
        overlap=overlap,
        tlsc=tlsc,
        self_ensemble=self_ensemble,
    )
    weights = None if weights is None else fspath(weights)
    with _messages_for_python():
        place = get_device(str(device))
        options = RestorerOptions(
            device=place,
            dtype=get_precision(precision, place),
            tlsc=tlsc,
            tile=tile,
            overlap=overlap,
            self_ensemble=self_ensemble,
        )
        return _loaded(PipelineSpec.parse(model, weights, None, options))


def _loaded(spec: PipelineSpec) -> LoadedModel:
    return LoadedModel(spec.load())


def list_models() -> Mapping[str, Model]:
    """Return all models by name, with their task, scale, size, paper and configs."""
    return MODELS


def _upright(image: Image.Image) -> Image.Image:
    """Decode a PIL picture, and turn it as its EXIF data say."""
    try:
        image.load()
    except (OSError, ValueError) as error:  # the latter if it is closed
        raise PictureError(f"the picture cannot be read: {error}") from error
    # Not for GIF and TIFF, which count frames by rereading the file and lose edited pixels.
    if (frames := vars(image).get("n_frames", 1)) > 1:
        _warn(f"only frame {image.tell() + 1} of {frames} is restored")
    try:
        return ImageOps.exif_transpose(image)
    except BROKEN as error:
        _warn(f"the EXIF data cannot be read: {error}")
        return image


def _check_types(model: object, **options: object) -> None:
    """Refuse options of the wrong type: names, numbers of pixels, and switches."""
    for name, value in {"model": model, **options}.items():
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if name in ("tile", "overlap"):
            fits = value is None or (number and int(cast("int", value)) >= 0)
            hint = "use a whole number from 0 on, or None for automatic"
        elif name in ("model", "weights", "device", "precision"):
            path = isinstance(value, PathLike) and name == "weights"
            usual = value is None and name in ("model", "weights")
            usual |= isinstance(value, torch.device) and name == "device"
            fits = usual or path or (isinstance(value, str) and value != "")
            hint = "use None for the default" if value == "" else "give a name"
        elif name in ("tlsc", "self_ensemble"):
            side = name == "tlsc" and number and int(cast("int", value)) >= 32
            fits = isinstance(value, bool) or side or (name == "tlsc" and value is None)
            more = ", a window of 32 pixels or more, or None for automatic"
            hint = "use True or False" + more * (name == "tlsc")
        else:
            continue
        if not fits:
            raise UsageError(f"{name} {value!r} is not possible", hint=hint)


def _stamp(weights: Name | None) -> tuple[object, ...]:
    """Return what changes when files of weights are rewritten, or the current folder changes."""
    if weights is None:
        return ()
    paths = [Path(part) for part in (fspath(weights), *fspath(weights).split("+"))]
    files = [path / name for path in paths for name in ("", *RUN_WEIGHTS_FILES)]
    return tuple((path.resolve(), path.stat().st_mtime_ns) for path in files if path.is_file())


@lru_cache(maxsize=4)
def _kept(stamp: tuple[object, ...], model: str | None, **options: Unpack[Options]) -> LoadedModel:
    return load_model(model, **options)
