"""Runs a network on pictures of any size: pads, runs on tiles or the whole, crops, clamps."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, product
from math import isqrt

import torch
from torch import Tensor, nn

from restore_cli.errors import DeviceError, PictureError, UsageError, WeightsError
from restore_cli.inference.concurrency import map_ordered
from restore_cli.inference.devices import prefers_bf16
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.memory import free_bytes, is_out_of_memory
from restore_cli.inference.stages import ProgressCallback, canvas, no_progress
from restore_cli.inference.tiling import Block, Span, padded_tile, plan_tiles, restore_blocks
from restore_cli.inference.tlsc import has_global_statistics, localise
from restore_cli.models.layers import memory_format
from restore_cli.models.spec import Model, TilePlacement, Tiling
from restore_cli.rounding import to_float, to_uint

_CLOSE = "close other programs"

_MAX_CONCURRENT_TILES = 8  # tiles; each takes up to 2 GB (`maxim`)


@dataclass(frozen=True, slots=True)
class RestorerOptions:
    """How to run a network."""

    device: torch.device  # device to run on
    # dtype of convolutions and matrix products on a CPU, of weights and features on other devices;
    # local means and blending stay float32. None for automatic, see `with_dtype`.
    dtype: torch.dtype | None = torch.float32
    # whether statistics are local, or the side of their window in input pixels; None for the
    # checkpoint's default
    tlsc: bool | int | None = None
    # longest side of a tile in input pixels; None for automatic, 0 for no tiling
    tile: int | None = None
    # overlap of tiles in input pixels; None for the checkpoint's default
    overlap: int | None = None
    # mean of the results for the eight flips and transpositions of a picture
    self_ensemble: bool = False

    def with_dtype(self, models: Sequence[Model]) -> RestorerOptions:
        """Return these options with a dtype, chosen if it is automatic.

        It is bfloat16 where the device computes that faster and all models support it: results then
        differ from float32 by 55 to 83 dB (docs/speed.md). Otherwise it is float32.
        """
        if self.dtype is not None:
            return self
        able = models and all(torch.bfloat16 in model.dtypes for model in models)
        fast = able and prefers_bf16(self.device)
        return replace(self, dtype=torch.bfloat16 if fast else torch.float32)


class Restorer:
    """Restores pictures with one network.

    Its only state is the tile size that was found to fit into memory.
    """

    def __init__(self, loaded: LoadedNetwork, options: RestorerOptions) -> None:
        """Convert the network and move it to the device.

        Raises:
            UsageError: TLSC was asked for, but the training size is unknown, or the network has no
                global statistics.
            WeightsError: the training size in the header is too small for the network.
            DeviceError: the device is not available.
        """
        side = None if isinstance(options.tlsc, bool) else options.tlsc
        base = (side, side) if side else loaded.tlsc_base
        if options.tlsc and base is None:
            raise UsageError(
                f"'{loaded.file.name}' has no training size, from which TLSC takes its window",
                hint="use --tlsc-window PIXELS or --no-tlsc",
            )
        local = has_global_statistics(loaded.network)
        if options.tlsc and not local:
            raise UsageError(
                f"'{loaded.model.name}' has no global statistics, so TLSC changes nothing",
                hint="leave out --tlsc",
            )
        options = options.with_dtype([loaded.model])
        dtype = options.dtype or torch.float32
        if dtype not in loaded.model.dtypes:
            raise UsageError(
                f"'{loaded.model.name}' does not run in {dtype}",
                hint="use --precision fp32",
            )
        self.loaded, self.model = loaded, loaded.model
        self.name, self.scale = loaded.model.name, loaded.model.scale  # output px per input px
        self.weights, self.sha256 = loaded.file.name, loaded.file.sha256
        self.options = options  # with a dtype
        self._local = local and (loaded.tlsc if options.tlsc is None else bool(options.tlsc))
        self._tlsc_base = base if self._local else None
        # window of local statistics as "96x96", or "off"
        self.tlsc_window = "x".join(map(str, self._tlsc_base)) if self._tlsc_base else "off"
        # overlap of tiles, input pixels
        self.overlap = loaded.overlap if options.overlap is None else options.overlap
        if side and options.overlap is None and loaded.model.overlap_grows:
            self.overlap = max(loaded.overlap, loaded.model.overlap * side // 96)
        self._can_be_local = local and base is not None
        self._bytes_per_pixel = loaded.model.bytes_per_pixel(loaded.config)
        # Without local statistics, tiling changes the result.
        tiling = loaded.model.tiling
        whole = not self._local if local else tiling is not Tiling.SUPPORTED
        whole &= tiling is not Tiling.WINDOWS
        self._whole_only = whole and options.tile is None
        # whether there are tiles that have global statistics of their own
        self.tiles_differ = local and whole and bool(options.tile)
        if options.tile:
            self._check_tile(options.tile)
        self._dtype = dtype
        self._network = self.build_network(dtype)
        self._float32_network: nn.Module | None = None  # created when half precision overflows
        # Limits after running out of memory: the side of a tile, and the tiles at the same time.
        self._limit: int | None = None
        self._most_at_once = _MAX_CONCURRENT_TILES

    def __call__(
        self, image: Tensor, report: ProgressCallback = no_progress, depth: int | None = None
    ) -> Tensor:
        """Restore (1, 3, H, W) of any size, float in [0, 1] or integers as in files.

        The result is (1, 3, scale * H, scale * W) on the CPU: float32 in [0, 1], or with a `depth`
        of 8 or 16 bits uint8 or uint16, without a float copy of the whole picture. `report` is
        called with (finished tiles, all tiles).

        Raises:
            DeviceError: out of memory even with the smallest tiles; or the picture must be restored
                whole and is estimated not to fit.
            PictureError: the network's output is not finite.
        """
        size = self.model.size
        height, width = (size.padded(side) for side in image.shape[-2:])
        tile = self.tile_side(height, width)
        self._check_memory(height, width)
        while True:
            try:
                return self._restore(image, tile, report, depth)
            except (MemoryError, RuntimeError) as error:
                tile = self._smaller(tile, error)
            # Here, since the traceback no longer references tensors.
            if self.options.device.type == "cuda":
                torch.cuda.empty_cache()
            elif self.options.device.type == "mps":
                torch.mps.empty_cache()

    def tile_side(self, height: int, width: int) -> int:
        """Return the longest side of a tile, pixels, for a padded picture of that size.

        It may be that of the whole picture.
        """
        longest = max(height, width)
        if self.options.tile == 0 or self._whole_only:
            return longest
        limits = [limit for limit in (self.options.tile, self._limit) if limit is not None]
        if limits:
            return min(longest, *limits)
        largest = self.model.largest_tile
        pixels = free_bytes(self.options.device) // 2 // self._bytes_per_pixel
        if height * width <= min(pixels, largest**2) and self.model.tiling is not Tiling.WINDOWS:
            return longest
        side = min(isqrt(pixels), largest)
        return min(longest, max(side, self._smallest_tile()))

    def plan(self, height: int, width: int, tile: int) -> tuple[list[Span], list[Span]]:
        """Return spans of the rows and columns of a picture's tiles, which may extend beyond it.

        All are in pixels: the picture's sides, and `tile`, the longest side of a tile.
        """
        return plan_tiles(self.model, height, width, tile, self.overlap)

    def cost(self, height: int, width: int) -> tuple[int, int, int]:
        """Count tiles, input pixels including overlaps, and bytes of features of a picture.

        `height` and `width` are its sides in pixels, before padding.
        """
        padded = (self.model.size.padded(side) for side in (height, width))
        rows, columns = self.plan(height, width, self.tile_side(*padded))
        areas = [band.length * span.length for band, span in product(rows, columns)]
        at_once = self.tiles_at_once(len(areas), max(areas))
        return len(areas), sum(areas), at_once * max(areas) * self._bytes_per_pixel

    def tiles_at_once(self, tiles: int, pixels: int) -> int:
        """Return how many tiles of at most `pixels` input pixels are restored at the same time.

        Networks that need windows spend half of their time in passes over memory that gain little
        from a second core: two windows at once are 1.2 times as fast (docs/speed.md). For the
        others, whose tiles are large and whose time is convolutions, it is one.
        """
        if self.options.device.type != "cpu" or self.model.tiling is not Tiling.WINDOWS:
            return 1
        threads = torch.get_num_threads()
        room = free_bytes(self.options.device) // 4 // (pixels * self._bytes_per_pixel)
        most = max(1, min(threads, tiles, room, self._most_at_once))
        # As many threads busy as possible, e.g. 2 x 2 of 4 rather than 3 x 1 for three tiles.
        return max(range(1, most + 1), key=lambda count: (threads // count * count, count))

    def _restore(
        self, image: Tensor, tile: int, report: ProgressCallback, depth: int | None
    ) -> Tensor:
        """Restore a picture; with self-ensemble, take the mean over its eight poses."""
        if not self.options.self_ensemble:
            restored = self._restore_once(image, tile, report, depth)
            return restored.clamp_(0, 1) if depth is None else restored
        poses = list(product((False, True), repeat=3))
        total: Tensor | None = None
        for n, pose in enumerate(poses):

            def report_all(done: int, tiles: int, before: int = n) -> None:
                report(before * tiles + done, len(poses) * tiles)

            posed = self._restore_once(_transform(image, pose), tile, report_all, None)
            restored = _inverse_transform(posed, pose)
            total = restored.clone() if total is None else total.add_(restored)
        assert total is not None
        total.div_(len(poses))
        return total.clamp_(0, 1) if depth is None else to_uint(total, depth)

    def _restore_once(
        self, image: Tensor, tile: int, report: ProgressCallback, depth: int | None
    ) -> Tensor:
        """Restore a picture; with a depth it is rounded block by block, else not clipped."""
        height, width = (side * self.scale for side in image.shape[-2:])
        result = canvas(height, width, depth)
        with closing(self._blocks(image, tile, report)) as blocks:
            for block in blocks:
                top, left = block.top, block.left
                wanted = block.pixels[..., : height - top, : width - left]
                below, right = top + wanted.shape[-2], left + wanted.shape[-1]
                final = wanted if depth is None else to_uint(wanted, depth)
                result[..., top:below, left:right] = final
                del block, wanted, final  # before the next tile is restored
        return result

    def _blocks(
        self, image: Tensor, tile: int, report: ProgressCallback
    ) -> Generator[Block, None, None]:
        rows, columns = spans = self.plan(image.shape[-2], image.shape[-1], tile)
        height, width = (axis[-1].stop for axis in spans)
        places = list(product(rows, columns))
        largest = max(band.length * span.length for band, span in places)

        def restore(place: tuple[Span, Span]) -> Tensor:
            band, span = place
            piece = to_float(padded_tile(image, band, span))
            return self._run(piece, TilePlacement(band.start, span.start, height, width))

        done = count(1)

        def reported(restored: Tensor) -> Tensor:
            report(next(done), len(places))
            return restored

        with closing(
            map_ordered(restore, places, self.tiles_at_once(len(places), largest))
        ) as tiles:
            report(0, len(places))
            yield from restore_blocks(self.scale, spans, map(reported, tiles))

    def _run(self, piece: Tensor, placement: TilePlacement) -> Tensor:
        """Run the network on a tile; the result is float32 on the CPU, and finite."""
        dtype = self._dtype
        restored = self._forward(self._network, piece, placement, dtype)
        if dtype != torch.float32 and not restored.isfinite().all():
            # fp16 overflows at 65504, on few tiles; only these are repeated in float32.
            if self._float32_network is None:
                self._float32_network = self.build_network(torch.float32)
            restored = self._forward(self._float32_network, piece, placement, torch.float32)
        if not restored.isfinite().all():
            raise PictureError(f"the output of '{self.model.name}' contains NaN or infinity")
        return restored.clone()

    def _forward(
        self, network: nn.Module, piece: Tensor, placement: TilePlacement, dtype: torch.dtype
    ) -> Tensor:
        device = self.options.device
        on_cpu = device.type == "cpu"
        x = piece.to(device, torch.float32 if on_cpu else dtype)
        x = x.contiguous(memory_format=memory_format(device))
        arguments = (x, placement) if self.model.takes_placement else (x,)
        # On a CPU, additions to the picture stay float32: with all weights and features in bf16,
        # msan differs from float32 by 61 instead of 83 dB, in the same time.
        half = torch.autocast("cpu", dtype, enabled=on_cpu and dtype != torch.float32)
        with torch.inference_mode(), half:
            restored: Tensor = network(*arguments).float().cpu().contiguous()
        return restored

    def build_network(self, dtype: torch.dtype) -> nn.Module:
        """Put the network on the device, with local statistics, in its memory format.

        `dtype` is that of the weights, except on a CPU, where they stay float32.

        Raises:
            DeviceError: the device is not available.
            WeightsError: the training size is too small for the network.
        """
        loaded, device = self.loaded, self.options.device
        network = loaded.network
        if device.type == "cpu":
            dtype = torch.float32
        else:
            network = copy.deepcopy(network)  # the loaded network must not change
        if self._tlsc_base:
            train_size = loaded.train_size or self._tlsc_base
            try:
                network = localise(network, train_size, self._tlsc_base)
            except (RuntimeError, ArithmeticError) as error:
                size = "x".join(map(str, train_size))
                raise WeightsError(
                    f"'{self.weights}' has a training size of {size}, which is too small for "
                    f"'{self.name}'",
                    hint="download or convert the file again",
                ) from error
        try:
            network.to(device, dtype, memory_format=memory_format(device))  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"cannot use device '{device}': {error}") from error
        return network

    def _smaller(self, tile: int, error: Exception) -> int:
        """Halve the tile after running out of memory; other errors are raised again.

        Tiles that may have run at the same time are first tried one at a time.
        """
        if not is_out_of_memory(error):
            raise error
        if self.tiles_at_once(_MAX_CONCURRENT_TILES, 1) > 1:
            self._most_at_once = 1
            return tile
        multiple = self.model.size.multiple_of
        half = tile // 2 // multiple * multiple
        fixed = self.options.tile == 0 or self._whole_only
        if fixed or half < self._smallest_tile():
            place = self.options.device
            hint = _CLOSE if place.type == "cpu" else "use --device cpu"
            raise DeviceError(
                f"out of memory on '{place}' with tiles of {tile} px",
                hint=self._whole_hint(tile, hint) if fixed else hint,
            ) from error
        self._limit = half
        return half

    def _check_memory(self, height: int, width: int) -> None:
        """Refuse whole pictures that need too much memory: on a CPU the process would be killed."""
        whole = self._whole_only or self.options.tile == 0
        if self.options.device.type == "cuda" or not whole:
            return
        needed, free = height * width * self._bytes_per_pixel, free_bytes(self.options.device)
        if needed > free:
            raise DeviceError(
                f"a picture of {width}x{height} px needs about {needed / 1e9:.0f} GB without tiles "
                f"with '{self.model.name}', but {free / 1e9:.1f} GB are free",
                hint=self._whole_hint(max(height, width), _CLOSE),
            )

    def _whole_hint(self, longest: int, otherwise: str) -> str:
        """Name options that need less memory than a picture of that side, if there are any."""
        multiple = self.model.size.multiple_of
        tile = max(min(512, longest // 2 // multiple * multiple), self._smallest_tile())
        if tile >= longest:
            return otherwise
        tiles = f"--tile {tile}"
        local = self._whole_only and self._can_be_local
        return f"use --tlsc or {tiles}; the result will differ" if local else f"use {tiles}"

    def _check_tile(self, tile: int) -> None:
        if tile < self._smallest_tile():
            raise UsageError(
                f"--tile {tile} is too small for '{self.model.name}' with an overlap of "
                f"{self.overlap} px",
                hint=f"use --tile {self._smallest_tile()} or more, or a smaller --overlap",
            )

    def _smallest_tile(self) -> int:
        step = self.model.tile_step
        return self.model.size.padded(3 * -(-self.overlap // step) * step)


def _transform(image: Tensor, pose: tuple[bool, ...]) -> Tensor:
    """Flip left-right, then upside down, then transpose, each if the pose says so."""
    mirrored, upside_down, transposed = pose
    image = image.flip(-1) if mirrored else image
    image = image.flip(-2) if upside_down else image
    return image.mT if transposed else image


def _inverse_transform(image: Tensor, pose: tuple[bool, ...]) -> Tensor:
    """Invert `_transform`."""
    mirrored, upside_down, transposed = pose
    image = image.mT if transposed else image
    image = image.flip(-2) if upside_down else image
    return image.flip(-1) if mirrored else image
