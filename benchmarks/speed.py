"""Where the time goes: ratios inside one run, so that a slow day cancels out.

    python benchmarks/speed.py [--quick] [--models NAME ...] [--size WIDTHxHEIGHT]
        [--rows network networks start folder processes score memory bf16 large large-x4 listed]

Prints a table and appends it to the file of the day. Run it on an idle machine: `make bench`.

| row | what is divided by what |
|---|---|
| plain | the network as published: NCHW, every output, means over integral images / ours |
| roofline | ours / its operations at the rate of a 3x3 convolution, 96 channels, channels_last |
| tlsc | with local statistics / without |
| folder | `restore image` on 32 pictures, from the first to the last / the network's time alone |
| start | `restore image` on a 64x64 picture, whole process / `import torch` alone |
| processes | 32 small pictures with two processes of one thread (-d cpu,cpu) / one process |
| score | seconds to score one more pair of 1280x720 with PSNR and SSIM; not a ratio |
| NAME / roofline | the same as roofline for every network of published size |
| NAME bf16 | the time in bf16 / in float32, and the time in bf16 / a convolution's in bf16 |
| memory | growth of the process's peak from small to large inputs, per byte of input and output |
| large | 12 megapixels: -x1 / the time of its network alone; --size keep / -x1 |
| large-x4 | gigabytes of 12 megapixels enlarged x4, by bicubic and by gfn; not a ratio |
| listed | seconds per megapixel of every checkpoint, as `restore models` lists them; not a ratio |

Times are taken in turns. A ratio is the median of the turns' ratios. What is published runs in a
process as Python starts it, ours in one as `restore` starts it (threads, memory).
"""

from __future__ import annotations

import argparse
import copy
import datetime
import functools
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from restore_cli.cli._process import limit_thread_spinning

if "--plain" not in sys.argv:
    limit_thread_spinning()  # as `restore` does

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from restore_cli.inference.loading import LoadedNetwork, load_network
from restore_cli.inference.memory import keep_freed_memory
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.tlsc import windows
from restore_cli.models.layers import GlobalMean
from restore_cli.models.mprnet import ChannelAttention
from restore_cli.models.mprnet_mscam import MultiScaleAttention
from restore_cli.models.registry import MODELS
from restore_cli.weights.checkpoint import CheckpointHeader, write_checkpoint
from restore_cli.weights.manifest import load_manifest
from restore_cli.weights.store import locate

CPU = torch.device("cpu")
HEIGHT, WIDTH = 176, 320
CONVOLUTION = 2 * 96 * 96 * 9 * HEIGHT * WIDTH  # operations of the one that is the measure
Row = tuple[str, float, str, str]


class PublishedMean(nn.Module):
    """The published converter: an integral image of the full map, the projection after it."""

    def __init__(self, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor, projection: nn.Module, *, level: int = 0) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        height, width = x.shape[-2:]
        rows, columns = min(self.window[0], height), min(self.window[1], width)
        if rows == height and columns == width:
            projected: Tensor = projection(x.mean((2, 3), keepdim=True))
            return projected
        total = F.pad(x.cumsum(-1).cumsum_(-2), (1, 0, 1, 0))
        mean = (
            total[..., :-rows, :-columns]
            - total[..., :-rows, columns:]
            - total[..., rows:, :-columns]
            + total[..., rows:, columns:]
        ) / (rows * columns)
        left, top = (columns - 1) // 2, (rows - 1) // 2
        mean = F.pad(mean, (left, columns - 1 - left, top, rows - 1 - top), mode="replicate")
        projected = projection(mean)
        return projected


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="lite instead of paper size")
    parser.add_argument("--repeat", type=int, default=5)
    usual = ["network", "networks", "start", "folder", "processes", "score", "memory"]
    notes = (
        "bf16 is for processors that compute in it; large takes 17 minutes in bf16, large-x4 and "
        "listed 6 to 10"
    )
    parser.add_argument("--rows", nargs="+", default=usual, help=notes)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="of networks and bf16")
    parser.add_argument("--size", default="320x180", help="pictures of networks and bf16")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "speed")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = "lite" if arguments.quick else "paper"
    names, repeat = arguments.models, arguments.repeat
    width, height = map(int, arguments.size.split("x"))
    image = torch.rand(1, 3, height, width)
    if arguments.plain:
        serve_plain(config)
        return
    keep_freed_memory()
    makers: dict[str, Callable[[], list[Row]]] = {
        "network": lambda: network_rows(config, repeat),
        "networks": lambda: [roofline_row(name, image, repeat) for name in names],
        "start": lambda: [start_row(repeat, "mprnet-mscam"), start_row(repeat, "")],
        "folder": lambda: [folder_row()],
        "memory": lambda: [memory_row()],
        "bf16": lambda: [row for name in names for row in bf16_rows(name, image, repeat)],
        "large": large_rows,
        "large-x4": large_x4_rows,
        "listed": listed_rows,
        "processes": lambda: [processes_row(repeat)],
        "score": lambda: [score_row()],
    }
    rows = [row for name in arguments.rows for row in makers[name]()]
    lines = ["| ratio | measured | target | what was measured |", "|---|---|---|---|"]
    lines += [f"| {name} | {ratio:.2f} | {target} | {what} |" for name, ratio, target, what in rows]
    today = datetime.datetime.now(datetime.UTC).date()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    text = "\n".join([f"# Speed, {today}", "", machine, "", *lines, ""])
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / f"{today}.md").open("a", encoding="utf-8") as file:
        file.write(text)


def make_network(config: str, name: str = "mprnet-mscam") -> nn.Module:
    """Draw the same weights in every process."""
    torch.manual_seed(0)
    model = MODELS[name]
    return model.build(model.configs[config]).eval()


def load_random(network: nn.Module, config: str, name: str = "mprnet-mscam") -> LoadedNetwork:
    """Return a network as the product loads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        shape = asdict(MODELS[name].configs[config])
        write_checkpoint(path, network.state_dict(), CheckpointHeader(name, shape, (64, 64), {}))
        return load_network(locate(str(path), None))


class Convolution:
    """The measure: a 3x3 convolution as often as half of some operations take.

    As long as half of what it is compared with, so that both meet the same good and bad moments.
    """

    def __init__(self, flops: int, dtype: torch.dtype = torch.float32) -> None:
        self.map = torch.rand(1, 96, HEIGHT, WIDTH).to(dtype, memory_format=torch.channels_last)
        one = nn.Conv2d(96, 96, 3, padding=1, bias=False)
        self.one = one.to(dtype=dtype, memory_format=torch.channels_last)
        self.times = max(1, flops // (2 * CONVOLUTION))
        self.factor = flops / (2 * self.times * CONVOLUTION)

    def __call__(self) -> None:
        """Convolve."""
        with torch.inference_mode():
            for _ in range(self.times):
                self.one(self.map)

    def best(self, before: list[float], after: list[float]) -> list[float]:
        """Seconds that all operations take at the rate of two calls, turn by turn."""
        return [(a + b) * self.factor for a, b in zip(before, after, strict=True)]


@register_flop_formula(torch.ops.mkldnn._linear_pointwise)
def count_dense(x: list[int], weight: list[int], *_: object, **__: object) -> int:
    """Operations of maxim's dense layers, whose kernel torch does not count."""
    return 2 * math.prod(x) * weight[0]


def count_flops(ours: Restorer, image: Tensor) -> int:
    """Operations of one picture."""
    with FlopCounterMode(display=False) as counter:
        ours(image)
    return counter.get_total_flops()


def roofline_row(name: str, image: Tensor, repeat: int) -> Row:
    """One network of published size against the rate of a convolution."""
    config = next(iter(MODELS[name].configs))
    loaded = load_random(make_network(config, name), config, name)
    ours = Restorer(loaded, RestorerOptions(CPU, tile=0))
    flops = count_flops(ours, image)
    convolve = Convolution(flops)
    turns = interleaved(
        {"conv": convolve, "ours": lambda: ours(image), "conv again": convolve}, repeat
    )
    turns["best"] = convolve.best(turns["conv"], turns["conv again"])
    seconds, best = (statistics.median(turns[key]) for key in ("ours", "best"))
    size = f"{image.shape[-1]}x{image.shape[-2]}"
    what = f"{size}: {seconds:.2f} s, {flops / 1e9:.0f} GFLOP at {flops / best / 1e9:.0f} GFLOP/s"
    target = "<= 1.5" if name.startswith("maxim") else "<= 1.25"
    return (f"{name} / roofline", ratio(turns, "ours", "best"), target, what)


def bf16_rows(name: str, image: Tensor, repeat: int) -> list[Row]:
    """One network of published size in bf16, against float32 and against a convolution in bf16."""
    config = next(iter(MODELS[name].configs))
    loaded = load_random(make_network(config, name), config, name)
    exact = Restorer(loaded, RestorerOptions(CPU, tile=0))
    half = Restorer(loaded, RestorerOptions(CPU, dtype=torch.bfloat16, tile=0))
    flops = count_flops(exact, image)
    convolve = Convolution(flops, torch.bfloat16)
    calls = {"conv": convolve, "half": lambda: half(image), "conv again": convolve}
    turns = interleaved(calls | {"exact": lambda: exact(image)}, repeat)
    turns["best"] = convolve.best(turns["conv"], turns["conv again"])
    seconds = {key: statistics.median(turn) for key, turn in turns.items()}
    size = f"{image.shape[-1]}x{image.shape[-2]}"
    what = f"{size}: {seconds['half']:.2f} s, {seconds['exact']:.2f} s"
    rate = f"{flops / 1e9:.0f} GFLOP at {flops / seconds['best'] / 1e9:.0f} GFLOP/s"
    target = "<= 2" if name.startswith("maxim") else ""
    return [
        (f"{name} bf16 / fp32", ratio(turns, "half", "exact"), "<= 0.6", what),
        (f"{name} bf16 / roofline", ratio(turns, "half", "best"), target, rate),
    ]


def serve_plain(config: str) -> None:
    """Run the network as published once per line of stdin, and print its seconds."""
    plain = published(make_network(config))
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    for _ in sys.stdin:
        begun = time.perf_counter()
        plain(image)
        print(time.perf_counter() - begun, flush=True)


def network_rows(config: str, repeat: int) -> list[Row]:
    """plain, roofline, tlsc."""
    loaded = load_random(make_network(config), config)
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    ours = Restorer(loaded, RestorerOptions(CPU, tile=0))
    off = Restorer(loaded, RestorerOptions(CPU, tile=0, tlsc=False))
    flops = count_flops(ours, image)
    convolve = Convolution(flops)
    command = [sys.executable, __file__, "--plain", *(["--quick"] if config == "lite" else [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as plain:
        assert plain.stdin is not None
        assert plain.stdout is not None
        to, answers = plain.stdin, plain.stdout

        def ask() -> None:
            to.write("\n")
            answers.readline()

        calls: dict[str, Callable[[], object]] = {
            "plain": ask,
            "conv": convolve,
            "ours": lambda: ours(image),
            "conv again": convolve,
            "off": lambda: off(image),
        }
        turns = interleaved(calls, repeat)
        to.close()
    turns["best"] = convolve.best(turns["conv"], turns["conv again"])
    seconds = {name: statistics.median(turn) for name, turn in turns.items()}
    size = f"mprnet-mscam {config}, {WIDTH}x{HEIGHT}"
    return [
        (
            "plain / ours",
            ratio(turns, "plain", "ours"),
            ">= 1.7",
            f"{size}: {seconds['plain']:.2f} s, {seconds['ours']:.2f} s",
        ),
        (
            "ours / roofline",
            ratio(turns, "ours", "best"),
            "<= 1.2",
            f"{flops / 1e9:.0f} GFLOP at {flops / seconds['best'] / 1e9:.0f} GFLOP/s: "
            f"{seconds['best']:.2f} s",
        ),
        (
            "TLSC on / off",
            ratio(turns, "ours", "off"),
            "<= 1.06",
            f"{seconds['ours']:.2f} s, {seconds['off']:.2f} s",
        ),
    ]


def attend_channels(self: ChannelAttention, x: Tensor, block_input: Tensor) -> Tensor:
    """`ChannelAttention` an operation at a time."""
    gate = self.expand(F.relu(self.mean(x, self.squeeze)))
    return block_input + x * gate.sigmoid()


def attend_scales(self: MultiScaleAttention, x: Tensor, block_input: Tensor) -> Tensor:
    """`MultiScaleAttention` an operation at a time."""
    local = self.local_expand(F.relu(self.local_squeeze(x)))
    whole = self.global_expand(F.relu(self.mean(x, self.global_squeeze)))
    return block_input + x * (local + whole).sigmoid()


def published(network: nn.Module) -> Callable[[Tensor], object]:
    """Build the network as published: NCHW, every stage's image, its own tail, nothing fused."""
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in plain.modules():
        if isinstance(module, ChannelAttention):
            module.forward = functools.partial(attend_channels, module)
        elif isinstance(module, MultiScaleAttention):
            module.forward = functools.partial(attend_scales, module)
    sizes = windows(plain, (64, 64), (96, 96))
    for name, module in list(plain.named_modules()):
        if isinstance(module, GlobalMean):
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, PublishedMean(sizes[name][0]))
    upscaler = plain.upscaler

    def tail(x: Tensor) -> Tensor:
        x = F.leaky_relu(upscaler.conv(x + upscaler.groups(x)), 0.1)
        image: Tensor = upscaler.image(F.pixel_shuffle(upscaler.expand(x), upscaler.scale))
        return F.pixel_unshuffle(image, upscaler.scale)  # what the network shuffles again

    upscaler.forward = tail

    def run(image: Tensor) -> object:
        with torch.no_grad():
            return plain.outputs(image)

    return run


def start_row(repeat: int, model: str) -> Row:
    """Time the first picture of a process, with a model's bundled weights or the default model."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "a.png"
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(picture)
        command = [sys.executable, "-m", "restore_cli", "image", str(picture), "-q"]
        command += ["--on-exists", "overwrite", *(["--model", model] if model else [])]
        turns = interleaved(
            {
                "restore": lambda: subprocess.run(command, check=True, capture_output=True),
                "torch": lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
            },
            repeat,
        )
    seconds = statistics.median(turns["restore"])
    start = ratio(turns, "restore", "torch")
    return (
        "start / import torch",
        start,
        "<= 1.1",
        f"{seconds:.2f} s, 64x64, {model or 'default'}",
    )


def folder_row() -> Row:
    """32 pictures: reading and writing beside the network."""
    script = """
import sys, time
from pathlib import Path
from restore_cli.cli._process import limit_thread_spinning
limit_thread_spinning()
import torch
from restore_cli.image import read_image
from restore_cli.inference.memory import keep_freed_memory
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.plan import plan
from restore_cli.jobs.request import Destination, RestoreRequest, Selection
from restore_cli.jobs.restoration import Restoration
from restore_cli.jobs.run import restore_all
keep_freed_memory()
folder, out, ahead = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
options = RestorerOptions(torch.device("cpu"))
pipeline = PipelineSpec.parse("mprnet-mscam", None, 4, options).load()
work = Restoration(RestoreRequest(Selection((folder,)), Destination(out)), pipeline)
items = plan(work.request, pipeline.spec)
images = [read_image(item.source).pixels for item in items]
pipeline(images[0])
whole = pure = 0.0
for n in range(0, 32, 8):  # in turns
    begun = time.monotonic()
    for image in images[n : n + 8]:
        pipeline(image)
    pure += time.monotonic() - begun
    begun = time.monotonic()
    some = items[n : n + 8]
    assert len(list(restore_all(work, some, ahead=ahead))) == 8
    whole += time.monotonic() - begun
print(whole, pure)
"""
    best: dict[int, tuple[float, float]] = {}
    for ahead in (0, 4):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "in"
            source.mkdir()
            rng = np.random.default_rng(0)
            for n in range(32):
                smooth = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
                large = Image.fromarray(smooth).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
                large.save(source / f"{n:02}.png")
            command = [sys.executable, "-c", script, str(source), f"{folder}/out", str(ahead)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            whole, pure = map(float, done.stdout.split())
            best[ahead] = whole, pure
    ratios = {ahead: whole / pure for ahead, (whole, pure) in best.items()}
    ahead = min(ratios, key=lambda n: ratios[n])
    other = 4 - ahead
    what = (
        f"32 of {WIDTH}x{HEIGHT}, lite: {best[ahead][0]:.1f} s, {best[ahead][1]:.1f} s "
        f"(-j {ahead}; with -j {other} {ratios[other]:.2f})"
    )
    return ("folder / forward", ratios[ahead], "<= 1.05", what)


def peak(*arguments: str) -> tuple[int, float]:
    """Bytes and seconds of `restore image` with those arguments."""
    script = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "restore_cli", "image", "-q", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
    begun = time.monotonic()
    command = [sys.executable, "-c", script, "--on-exists", "overwrite", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]), time.monotonic() - begun


def make_photo(path: Path, width: int, height: int) -> None:
    """Make a smooth picture of that size."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    large = Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)
    large.save(path, quality=95)


def memory_row() -> Row:
    """Peak memory of the process on 3 and on 0.14 million pixels, tiles of one size."""
    sizes = ((384, 376), (2008, 1496))
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in sizes:
            path = Path(folder) / f"{width}.png"
            make_photo(path, width, height)
            output = f"{folder}/out_{width}.png"
            options = ["--model", "mprnet-mscam", "--tile", "384", "-o", output]
            peaks.append(peak(str(path), *options)[0])
    small, large = peaks
    pixels = sizes[1][0] * sizes[1][1] - sizes[0][0] * sizes[0][1]
    pictures = 3 * (pixels + 16 * pixels)  # input and output, a byte a value
    what = f"{small / 1e9:.2f} GB, {large / 1e9:.2f} GB; input and output {pictures / 1e9:.2f}"
    return ("memory growth / pictures", (large - small) / pictures, "<= 1.1", what)


def large_rows() -> list[Row]:
    """Time a photo of 12 megapixels with the default for x1, and with `--size keep`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jpg"
        make_photo(path, 4000, 3000)
        output = ["-o", f"{folder}/out.jpg", str(path)]
        bytes_x1, whole = peak("-x1", *output)
        bytes_keep, keep = peak("--size", "keep", *output)
        pipeline = PipelineSpec.parse(None, None, 1, RestorerOptions(CPU, dtype=None)).load()
        image = torch.rand(1, 3, 3000, 4000)
        begun = time.monotonic()
        pipeline(image)
        alone = time.monotonic() - begun
    return [
        (
            "12 megapixels, -x1 / network",
            whole / alone,
            "<= 1.1",
            f"{whole / 60:.1f} minutes, {alone / 60:.1f} minutes; {bytes_x1 / 1e9:.1f} GB",
        ),
        (
            "12 megapixels, --size keep / -x1",
            keep / whole,
            "<= 0.25",
            f"{keep / 60:.1f} minutes, {bytes_keep / 1e9:.1f} GB",
        ),
    ]


def large_x4_rows() -> list[Row]:
    """Peak memory of a photo of 12 megapixels that is enlarged to 192."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jpg"
        make_photo(path, 4000, 3000)
        for model in ("bicubic", "gfn"):
            size, seconds = peak("--model", model, "-x4", "-o", f"{folder}/out.jpg", str(path))
            what = f"{model}: {seconds / 60:.1f} minutes; 0.04 GB in, 0.58 GB out"
            rows.append(("GB, 12 megapixels x4", size / 1e9, "<= 2.5", what))
    return rows


def listed_rows() -> list[Row]:
    """Seconds per megapixel of every checkpoint, float32, on a picture of 1280x960."""
    rows = []
    image = torch.rand(1, 3, 960, 1280)
    for name, checkpoint in load_manifest().checkpoints.items():
        options = RestorerOptions(CPU, dtype=None)
        pipeline = PipelineSpec.parse(checkpoint.model, name, None, options).load()
        pipeline(image[..., :256, :256])
        begun = time.perf_counter()
        pipeline(image)
        seconds = (time.perf_counter() - begun) / (image.shape[-2] * image.shape[-1] / 1e6)
        listed = checkpoint.seconds_per_megapixel
        rows.append(("s/Mpx", seconds, f"listed: {listed}", name))
    return rows


def processes_row(repeat: int) -> Row:
    """Time a folder of small pictures: one process with all cores, or one thread per core."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for n in range(32):
            make_photo(source / f"{n:02}.png", 320, 176)
        command = [sys.executable, "-m", "restore_cli", "image", str(source), "-q"]
        command += ["--model", "mprnet-mscam", "-o", f"{folder}/out", "--on-exists", "overwrite"]
        devices = ",".join(["cpu"] * (os.cpu_count() or 1))
        turns = interleaved(
            {
                "one": lambda: subprocess.run(command, check=True, capture_output=True),
                "each": lambda: subprocess.run(
                    [*command, "-d", devices], check=True, capture_output=True
                ),
            },
            min(repeat, 2),
        )
    seconds = {key: statistics.median(turn) for key, turn in turns.items()}
    what = f"32 of 320x176: {seconds['each']:.1f} s with -d {devices}, {seconds['one']:.1f} s"
    return ("a process a core / one process", ratio(turns, "each", "one"), "", what)


def score_row() -> Row:
    """Scoring one pair more: PSNR and SSIM of bicubic, without start and reports."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (4, 24):
            pairs = Path(folder) / str(count)
            for kind, scale in (("lr", 1), ("hr", 4)):
                (pairs / kind).mkdir(parents=True)
                for n in range(count):
                    make_photo(pairs / kind / f"{n:02}.png", 320 * scale, 180 * scale)
            command = [sys.executable, "-m", "restore_cli", "benchmark", "--dataset", str(pairs)]
            command += ["--model", "bicubic", "-q", "-o", f"{pairs}-report"]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[count] = time.perf_counter() - begun
    one = (seconds[24] - seconds[4]) / 20
    return ("seconds, one pair scored", one, "<= 0.3", "1280x720, PSNR and SSIM, bicubic x4")


def interleaved(calls: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each call; they take turns, so that a slow minute hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeat):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(turns: dict[str, list[float]], above: str, below: str) -> float:
    """Return the median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(turns[above], turns[below], strict=True))


if __name__ == "__main__":
    main()
