"""The restorer: any size, tiled = whole, memory that runs out, values that are not finite."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_CONFIGS, picture, slow

from restore_cli.errors import DeviceError, PictureError, UsageError
from restore_cli.image import read_image
from restore_cli.inference.loading import LoadedNetwork, load_network
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import TilePlacement
from restore_cli.weights.checkpoint import CheckpointHeader, write_checkpoint
from restore_cli.weights.store import WeightsFile, locate

CPU = torch.device("cpu")
TILE = 384  # the smallest for an overlap of 128


def restorer(weights=None, network=None, **options) -> Restorer:
    loaded = load_network(locate(str(weights) if weights else None, "mprnet-mscam"))
    if network is not None:
        loaded = dataclasses.replace(loaded, network=network)
    return Restorer(loaded, RestorerOptions(device=CPU, **options))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (31, 17), (44, 52)])
def test_any_size(tiny_weights, size):
    restored = restorer(tiny_weights)(picture(*size))
    assert restored.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert restored.dtype == torch.float32
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert not restored.is_inference()


def test_padding_is_mirrored_and_cropped_away(tiny_weights):
    image = picture(60, 61)
    mirrored = torch.nn.functional.pad(image, (0, 3, 0, 4), mode="reflect")
    padded = restorer(tiny_weights)(mirrored)
    assert torch.equal(restorer(tiny_weights)(image), padded[..., :240, :244])


@pytest.mark.slow
def test_tiled_equals_whole_on_an_example():
    image = read_image(ROOT / "examples/sharp/motorcycle.png").pixels[..., :440, :480]
    tiled = restorer(tile=TILE)
    assert [len(spans) for spans in tiled.plan(440, 480, TILE)] == [2, 2]
    difference = (tiled(image) * 255).round() - (restorer(tile=0)(image) * 255).round()
    assert difference.abs().max() <= 2
    assert (difference.abs() <= 1).float().mean() >= 0.9999


def test_progress_is_reported_per_tile(tiny_weights):
    seen = []
    restorer(tiny_weights, tile=48, overlap=16)(picture(64, 100), lambda *p: seen.append(p))
    assert seen == [(n, 6) for n in range(7)]


class Hungry(torch.nn.Module):
    """Runs out of memory above a number of pixels."""

    def __init__(self, network, pixels, error):
        super().__init__()
        self.network, self.pixels, self.error = network, pixels, error

    def forward(self, image, placement=None):
        measuring = len(image) == 0  # the size of the windows
        if image.shape[-2] * image.shape[-1] > self.pixels and not measuring:
            raise self.error
        return self.network(image, placement)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_out_of_memory_halves_the_tile_and_gives_the_same_picture(
    tiny_weights, tiny_network, error
):
    image = picture(96, 128)
    expected = restorer(tiny_weights, overlap=16, tile=64)(image)
    hungry = restorer(tiny_weights, Hungry(tiny_network, 64 * 64, error), overlap=16)
    assert torch.equal(hungry(image), expected)
    assert hungry.tile_side(96, 128) == 64  # remembers the size that fits


def test_without_local_statistics_tiles_are_not_taken_by_stealth(tiny_weights, tiny_network):
    hungry = Hungry(tiny_network, 64 * 64, MemoryError())
    with pytest.raises(DeviceError, match="out of memory") as caught:
        restorer(tiny_weights, hungry, overlap=16, tlsc=False)(picture(96, 128))
    assert "--tile" in caught.value.hint
    asked = restorer(tiny_weights, hungry, overlap=16, tlsc=False, tile=64)
    assert asked(picture(96, 128)).shape == (1, 3, 384, 512)


def test_too_small_tiles_are_refused_before_any_picture(tiny_weights):
    with pytest.raises(UsageError, match="--tile 100 is too small") as caught:
        restorer(tiny_weights, tile=100, overlap=64)
    assert "--tile 192" in caught.value.hint


def test_what_was_loaded_stays_as_it_was(tiny_weights):
    loaded = load_network(locate(str(tiny_weights), None))
    before = {name: tensor.clone() for name, tensor in loaded.network.state_dict().items()}
    rough = Restorer(loaded, RestorerOptions(CPU, dtype=torch.bfloat16))
    exact = Restorer(loaded, RestorerOptions(CPU))
    after = loaded.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    image = picture(40, 40)
    assert 0 < (rough(image) - exact(image)).abs().max() < 0.2


def test_out_of_memory_for_good_is_an_error(tiny_weights, tiny_network):
    hungry = restorer(tiny_weights, Hungry(tiny_network, 8, MemoryError()))
    with pytest.raises(DeviceError, match="out of memory"):
        hungry(picture(400, 400))
    with pytest.raises(DeviceError, match="out of memory") as caught:
        restorer(tiny_weights, Hungry(tiny_network, 8, MemoryError()), tile=0)(picture(64, 64))
    assert caught.value.hint == "close other programs"  # no smaller tile is possible
    with pytest.raises(DeviceError, match="with tiles of 400 px") as caught:
        restorer(tiny_weights, Hungry(tiny_network, 8, MemoryError()), tile=0)(picture(400, 400))
    assert caught.value.hint == "use --tile 200"


def test_other_errors_are_not_taken_for_memory(tiny_weights, tiny_network):
    broken = restorer(tiny_weights, Hungry(tiny_network, 8, RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        broken(picture(64, 64))


def test_values_that_are_not_finite_are_never_written(tiny_weights, tiny_network):
    class Broken(torch.nn.Module):
        def forward(self, image, placement=None):
            return tiny_network(image, placement) / 0

    with pytest.raises(PictureError, match="NaN or infinity"):
        restorer(tiny_weights, Broken(), tlsc=False)(picture(16, 16))


def test_automatic_tiles_follow_free_memory(tiny_weights, monkeypatch):
    tiny = restorer(tiny_weights, overlap=32)
    monkeypatch.setattr("restore_cli.inference.restorer.free_bytes", lambda device: 10**12)
    assert tiny.tile_side(800, 1000) == 1000
    assert tiny.tile_side(4000, 4000) == 1024
    monkeypatch.setattr("restore_cli.inference.restorer.free_bytes", lambda device: 10**8)
    assert 96 <= tiny.tile_side(800, 1000) < 300
    monkeypatch.setattr("restore_cli.inference.restorer.free_bytes", lambda device: 0)
    assert tiny.tile_side(800, 1000) == 96  # three overlaps


def test_a_window_of_ones_own(tiny_weights):
    """As large as the picture, local statistics are the global ones; overlap follows the window."""
    loaded, image = load_network(locate(str(tiny_weights), None)), torch.rand(1, 3, 64, 64)
    stages = {
        tlsc: Restorer(loaded, RestorerOptions(CPU, tlsc=tlsc)) for tlsc in (None, False, 48, 64)
    }
    assert [one.tlsc_window for one in stages.values()] == ["48x48", "off", "48x48", "64x64"]
    results = {tlsc: stage(image) for tlsc, stage in stages.items()}
    assert torch.equal(results[48], results[None])
    assert torch.allclose(results[64], results[False], atol=1e-5)
    assert not torch.allclose(results[48], results[False], atol=1e-5)
    assert Restorer(loaded, RestorerOptions(CPU, tlsc=960)).overlap == 10 * loaded.model.overlap
    foreign = dataclasses.replace(loaded, train_size=None, tlsc_base=None)
    assert Restorer(foreign, RestorerOptions(CPU, tlsc=64)).tlsc_window == "64x64"


def test_tiles_with_statistics_of_their_own_are_announced(tiny_weights):
    def notes(**options):
        spec = PipelineSpec.parse(None, str(tiny_weights), None, RestorerOptions(CPU, **options))
        pipeline = spec.load()
        assert len(pipeline.describe()) == 1
        return pipeline.notes

    assert notes(tlsc=False) == notes(tile=256) == notes(tlsc=False, tile=0) == []
    assert "takes its statistics from each tile alone" in notes(tlsc=False, tile=256)[0]


def test_tlsc_needs_a_training_size(tiny_weights):
    loaded = load_network(locate(str(tiny_weights), None))
    unknown = dataclasses.replace(loaded, train_size=None, tlsc_base=None, tlsc=False)
    assert Restorer(unknown, RestorerOptions(CPU)).tlsc_window == "off"
    with pytest.raises(UsageError, match="training size"):
        Restorer(unknown, RestorerOptions(CPU, tlsc=True))


def tiny_restorer(name, **options) -> Restorer:
    """Of any model, with random weights."""
    model = MODELS[name]
    torch.manual_seed(2)
    network = model.build(TINY_CONFIGS[name]).eval()
    file = WeightsFile(name, Path(name), "0" * 64, None)
    loaded = LoadedNetwork(
        model, TINY_CONFIGS[name], network, file, (32, 32), (48, 48), True, model.overlap
    )
    return Restorer(loaded, RestorerOptions(CPU, **options))


@pytest.mark.parametrize("name", ["mprnet", "msan"])
def test_self_ensemble_is_its_definition(name):
    """Flip along the width, along the height, transpose; undone in reverse; mean, then clamp."""
    image = picture(24, 40)
    plain = tiny_restorer(name)
    seen = []
    network = plain._network
    total = 0
    for mirrored in (False, True):
        for upside_down in (False, True):
            for transposed in (False, True):
                x = image
                if mirrored:
                    x = torch.flip(x, [3])
                if upside_down:
                    x = torch.flip(x, [2])
                if transposed:
                    x = x.transpose(2, 3)
                with torch.inference_mode():
                    y = network(x.contiguous(), TilePlacement(0, 0, *x.shape[-2:]))
                if transposed:
                    y = y.transpose(2, 3)
                if upside_down:
                    y = torch.flip(y, [2])
                if mirrored:
                    y = torch.flip(y, [3])
                total = total + y
    expected = (total / 8).clamp(0, 1)
    ensemble = tiny_restorer(name, self_ensemble=True)
    restored = ensemble(image, lambda done, tiles: seen.append((done, tiles)))
    assert torch.allclose(restored, expected, atol=1e-5)
    assert (restored - plain(image)).abs().max() > 1e-4
    assert seen[-1] == (8, 8)


def test_a_picture_that_must_be_whole_and_cannot_be_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("restore_cli.inference.restorer.free_bytes", lambda device: 10**6)
    whole = tiny_restorer("msan", tlsc=False)
    with pytest.raises(DeviceError, match=r"needs about .* without tiles") as caught:
        whole(picture(400, 400))
    assert "--tlsc" in caught.value.hint
    assert tiny_restorer("msan")(picture(400, 400)).shape[-1] == 400  # local: in tiles
    assert tiny_restorer("msan", tlsc=False, tile=384)(picture(400, 400)).shape[-1] == 400


def test_attention_over_the_frame_stays_published_unless_asked_for(tmp_path):
    path = tmp_path / "msan.safetensors"
    network = MODELS["msan"].build(TINY_CONFIGS["msan"])
    header = CheckpointHeader("msan", dataclasses.asdict(TINY_CONFIGS["msan"]), (64, 64), {})
    write_checkpoint(path, network.state_dict(), header)
    loaded = load_network(locate(str(path), None))
    assert Restorer(loaded, RestorerOptions(CPU)).tlsc_window == "off"
    assert Restorer(loaded, RestorerOptions(CPU, tlsc=True)).tlsc_window != "off"


def test_a_network_without_global_statistics_cannot_be_made_local():
    with pytest.raises(UsageError, match="no global statistics"):
        tiny_restorer("gfn", tlsc=True)


class Overflows(torch.nn.Module):
    """Gives infinities in half precision (autocast, on a CPU) where the picture is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, image, placement=None):
        half = torch.is_autocast_enabled("cpu")
        seen = torch.get_autocast_dtype("cpu") if half else torch.float32
        type(self).seen.append(seen)
        large = torch.nn.functional.interpolate(image * self.weight, scale_factor=4)
        overflow = half and bool((image > 0.9).any())
        return large / 0 if overflow else large


def test_a_tile_that_overflows_is_done_again_in_fp32(tiny_weights, monkeypatch):
    Overflows.seen = []
    half = restorer(tiny_weights, Overflows(), dtype=torch.bfloat16, tlsc=False, tile=96, overlap=8)
    image = torch.full((1, 3, 64, 160), 0.5)
    image[..., 120:] = 1
    restored = half(image)
    assert restored.isfinite().all()
    assert (restored - torch.nn.functional.interpolate(image, scale_factor=4)).abs().max() < 0.01
    assert Overflows.seen.count(torch.float32) == 1  # the bright tile, and no other
    assert Overflows.seen.count(torch.bfloat16) == 2


@pytest.fixture(scope="module", params=[("maxim", 512, 256, 32), ("maxim-mscam", 128, 128, 32)])
def windows(request):
    """A network with windows, and their largest and smallest sides and least overlap."""
    name, *limits = request.param
    return tiny_restorer(name), *limits


@pytest.mark.parametrize("length", [40, 64, 100, 129, 320, 384, 450, 513, 640, 1283, 4032])
def test_windows_are_of_the_sizes_that_were_measured(windows, length):
    windows, largest, smallest, overlap = windows
    padded = -(-length // 64) * 64
    spans, _ = windows.plan(length, length, windows.tile_side(padded, padded))
    sides = {span.stop - span.start for span in spans}
    assert max(sides) <= largest
    assert min(sides) >= min(padded, smallest)
    assert all(side % 64 == 0 for side in sides)
    overlaps = [left.stop - right.start for left, right in itertools.pairwise(spans)]
    assert all(shared >= overlap for shared in overlaps)
    assert (spans[0].start, spans[-1].stop) == (0, length if length > largest else padded)


@pytest.mark.slow
def test_a_window_is_restored_by_itself_and_faded_in():
    """Far from its neighbours it equals what the network makes of it alone."""
    restorer_, image = tiny_restorer("maxim", tile=256), picture(448, 256)
    restored = restorer_(image)
    with torch.inference_mode():
        alone = restorer_._network(image[..., :256, :]).clamp(0, 1)
    assert torch.allclose(restored[..., :192, :], alone[..., :192, :], atol=1e-5)
    whole = tiny_restorer("maxim", tile=0)(image)
    assert not torch.allclose(restored, whole, atol=1e-3)  # the grid is another


@pytest.mark.parametrize("name", [slow("maxim"), "maxim-mscam"])
def test_windows_restored_at_once_give_the_same_picture(two_threads, monkeypatch, name):
    windows, image = tiny_restorer(name, tile=64, overlap=16), picture(64, 200)
    assert windows.tiles_at_once(4, 64 * 64) == 2
    two = windows(image)
    monkeypatch.setattr(Restorer, "tiles_at_once", lambda *_: 1)
    assert torch.equal(windows(image), two)


class Lonely(torch.nn.Module):
    """Runs out of memory in every thread but the main one."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return self.network(image)


@pytest.mark.slow
def test_out_of_memory_with_two_windows_at_once_tries_one_at_a_time(two_threads):
    windows, image = tiny_restorer("maxim", tile=64, overlap=16), picture(64, 200)
    expected = windows(image)
    windows._network = Lonely(windows._network)
    assert torch.equal(windows(image), expected)
    assert windows.tile_side(64, 200) == 64


def test_as_many_windows_at_once_as_threads_tiles_and_memory_allow(two_threads, monkeypatch):
    windows = tiny_restorer("maxim")
    assert [windows.tiles_at_once(tiles, 384**2) for tiles in (1, 2, 9)] == [1, 2, 2]
    assert tiny_restorer("gfn").tiles_at_once(9, 384**2) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [windows.tiles_at_once(tiles, 384**2) for tiles in (2, 3, 4)] == [2, 2, 4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    assert windows.tiles_at_once(99, 384**2) == 6
    monkeypatch.setattr("restore_cli.inference.restorer.free_bytes", lambda device: 10**6)
    assert windows.tiles_at_once(9, 384**2) == 1
