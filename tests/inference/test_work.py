"""How much work is done, counted: time would say more about the machine's day than about the code.

A number here may fall. Where it rises, something is computed, copied or imported that was not.
"""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.sizing import restore_to_size
from restore_cli.inference.stages import Bicubic
from restore_cli.rounding import to_float, to_uint
from restore_cli.weights.store import locate

CPU = torch.device("cpu")
HEAVY = ["torch._dynamo", "torch._inductor", "sympy", "accelerate", "matplotlib", "scipy"]
HEAVY += ["jinja2", "huggingface_hub", "ray", "av", "restore_cli.training"]
HEAVY += ["restore_cli.benchmarking"]
VIEWS = {"view", "_unsafe_view", "slice", "select", "permute", "transpose", "expand", "unsqueeze"}
VIEWS |= {"squeeze", "split", "split_with_sizes", "alias", "detach", "t", "as_strided", "mT"}
VIEWS |= {"empty", "new_empty", "empty_like", "_reshape_alias", "tensor_split", "chunk"}


class Counter(TorchDispatchMode):
    """Kernels that ran, and the largest float tensor that was made."""

    def __init__(self):
        super().__init__()
        self.kernels = 0
        self.largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if function.overloadpacket.__name__ not in VIEWS:
            self.kernels += 1
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.largest = max(self.largest, tensor.numel())
        return made


def bundled(name, **options):
    return Restorer(load_network(locate(None, name)), RestorerOptions(CPU, **options))


@pytest.mark.parametrize(
    ("name", "kernels", "megaflops"),
    [("mprnet-mscam", 555, 65_757), ("gfn", 79, 31_745)],
)
def test_a_picture_takes_no_more_kernels_and_operations(name, kernels, megaflops):
    stage, image = bundled(name, tile=0), torch.rand(1, 3, 128, 192)
    # inference_mode, as the stage has it, hides kernels from the counter; no_grad runs the same.
    with FlopCounterMode(display=False) as flops, Counter() as counted, torch.no_grad():
        stage._network(image.contiguous(memory_format=torch.channels_last))
    assert counted.kernels <= kernels
    assert flops.get_total_flops() <= megaflops * 10**6


def test_maps_stay_in_channels_last():
    """A map in the other layout makes what follows it three times slower, and nobody notices."""
    stage = bundled("mprnet-mscam", tile=0)
    wrong = []

    def look(module, arguments, made):
        if made.shape[1] > 3 and not made.is_contiguous(memory_format=torch.channels_last):
            wrong.append(module)

    for module in stage._network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(look)
    stage(torch.rand(1, 3, 128, 192))
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "dtype"), [(8, torch.uint8), (16, torch.uint16)])
def test_a_large_picture_is_never_held_in_float(depth, dtype, monkeypatch):
    """A byte a value, not four, twelve or sixteen; and the same values as in one piece of float."""
    stage = bundled("mprnet-mscam", tile=96, overlap=16)
    image = torch.rand(1, 3, 240, 208)
    in_float = stage(image)
    with Counter() as counted:
        whole = stage(image, depth=depth)
    assert whole.dtype == dtype
    assert counted.largest < 0.5 * whole.numel()
    expected = (in_float * (2**depth - 1)).round()
    assert torch.equal(whole.to(torch.int32), expected.to(torch.int32))
    taken, seen = to_uint(image, depth), []  # nor is the input, where it comes in whole numbers

    def noted(tile):
        seen.append(max(tile.shape[-2:]))
        return to_float(tile)

    expected = stage(to_float(taken), depth=depth)
    monkeypatch.setattr("restore_cli.inference.restorer.to_float", noted)
    assert torch.equal(stage(taken, depth=depth), expected)
    assert max(seen) <= 96


@pytest.mark.parametrize("name", ["gfn", "moadg"])
def test_maps_of_the_large_size_exist_strip_by_strip(name, monkeypatch):
    """Strips have the values of a network in one piece, which has maps of 32 channels at x4."""
    network = bundled(name)._network
    image = torch.rand(1, 3, 140, 48).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        whole = network(image)
        monkeypatch.setattr("restore_cli.models.layers.STRIP_PIXELS", 33 * 48)
        with Counter() as counted:
            in_strips = network(image)
    assert torch.allclose(in_strips, whole, atol=1e-6)
    assert counted.largest < 0.5 * 32 * 16 * 140 * 48


def test_bicubic_results_are_never_held_in_float():
    """Nor is a multiple of them, without a depth: three megapixels at x4 took 5.8 GB."""
    image = torch.randint(0, 256, (1, 3, 400, 500), dtype=torch.uint8)
    stage = Bicubic(4)
    with Counter() as counted:
        in_float = stage(image)
    assert counted.largest == in_float.numel()  # the result itself
    with Counter() as counted:
        whole = stage(image, depth=8)
    assert counted.largest < 0.2 * whole.numel()
    assert torch.equal(whole, to_uint(in_float, 8))
    with Counter() as counted:  # a size that the scale does not give
        whole = restore_to_size(stage, image, (1700, 2100), depth=8)
    assert counted.largest == in_float.numel() < whole.numel()
    assert torch.equal(whole, to_uint(restore_to_size(stage, image, (1700, 2100)), 8))


@pytest.mark.slow
def test_the_first_picture_imports_no_more(tmp_path):
    """torch._dynamo alone would take 1.3 s; neither is anything needed of what trains or plots."""
    script = (
        "import sys\n"
        "from PIL import Image\n"
        f"Image.new('RGB', (32, 32)).save({str(tmp_path / 'a.png')!r})\n"
        f"sys.argv = ['restore', 'image', {str(tmp_path / 'a.png')!r}, '-q']\n"
        "from restore_cli.cli.app import app\n"
        "try:\n"
        "    app()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"heavy = {HEAVY}\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
def test_freed_memory_is_kept_for_the_next_map():
    """Page faults of a later pass, in a process as `restore` starts it.

    The forty maps have 4096 pages each, 163840 faults if none is kept; where
    the freed ones lie decides whether one map more is needed at times.
    """
    resource = pytest.importorskip("resource")
    script = (
        "import resource, torch\n"
        "from restore_cli.inference.memory import _glibc, keep_freed_memory\n"
        "keep_freed_memory()\n"
        "def work():\n"
        "    x = torch.ones(1, 32, 256, 512)  # 17 MB\n"
        "    for _ in range(20):\n"
        "        x = torch.relu(x + 1)\n"
        "work(); work(); work()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "work()\n"
        "faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "assert _glibc() is None or faults < 5 * 4096, faults\n"
    )
    assert resource
    subprocess.run([sys.executable, "-c", script], check=True)
