"""Fine-tunes checkpoints on a GPU in runs of a few minutes only.

`restore train` degrades photos in the training process, which such a GPU would wait for. Here, one
process per core degrades photos all the time into buffers in shared memory, from which one or more
trainers take random crops. The learning rate follows half a cosine over the seconds that were
given, so a run ends when it has to. Networks, degradations, losses and averages are the package's.

    python tools/train_on_gpu.py degrade ROOT finetune-x4 finetune-x1 --workers 13 &
    python tools/train_on_gpu.py train ROOT finetune-x4 gfn-lite.shake 120 [RECIPE WEIGHTS SECONDS]
    python tools/train_on_gpu.py export ROOT/out/gfn-lite.shake.pt gfn-lite.shake new.safetensors

ROOT, best in memory (/dev/shm), contains `photos/`, `pairs/blur`, `pairs/sharp` and optionally
held-out pairs as `check/x4/NAME/lr`, `check/x4/NAME/hr`. Each checkpoint is trained with the last
phase of its recipe, except for its steps and schedule. ROOT/out/WEIGHTS.pt is renewed every 45 s:
the averaged tensors that changed, float16, with the recipe and the numbers of steps and patches.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import time
import traceback
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from restore_cli.degradations.recipe import DegradationRecipe, degrade, draw, load_degradation
from restore_cli.files import write_then_rename
from restore_cli.image import read_rgb8
from restore_cli.inference.loading import load_network
from restore_cli.metrics import psnr
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise, to_uint
from restore_cli.training.data import Batch, flip_and_rotate, make_targets
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.recipe import TrainingRecipe, load_recipe
from restore_cli.training.trainer import Execution, Trainer, compute_losses, for_weights
from restore_cli.version import __version__
from restore_cli.weights.checkpoint import read_checkpoint, write_checkpoint
from restore_cli.weights.store import locate

PICTURE = (864, 1152)  # size of the photos that crops are supposed to come from
SHRUNK = (1.0, 0.8, 0.6)  # sizes of the pairs: more kinds of real blur from few frames
SAVE_SECONDS, LOG_SECONDS = 45, 10
Pixels = NDArray[np.uint8]


class Ring:
    """Pairs of a degraded and a sharp crop in memory that processes share.

    Each worker fills its own slots in turn, and counts what it has written.
    """

    def __init__(self, root: Path, scale: int, side: int, workers: int, slots: int) -> None:
        self.count = self._map(root / f"count-x{scale}", np.int64, (workers,))
        shape = (workers, slots // workers, 3)
        self.degraded = self._map(root / f"degraded-x{scale}", np.uint8, (*shape, side, side))
        side *= scale
        self.sharp = self._map(root / f"sharp-x{scale}", np.uint8, (*shape, side, side))

    @staticmethod
    def _map(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        return np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=shape)


def read(path: Path) -> Pixels:
    """(3, H, W)."""
    return read_rgb8(path).numpy()


def degradations(recipe: TrainingRecipe) -> dict[float, DegradationRecipe]:
    """List the degradations of a recipe's photos, by cumulative probability."""
    parts = [part for part in recipe.mixture if part.data == "photos"]
    ends = np.cumsum([part.probability for part in parts] or [1.0])
    names = [part.degradation or recipe.degradation for part in parts] or [recipe.degradation]
    return {end / ends[-1]: load_degradation(n) for end, n in zip(ends, names, strict=True)}


def degrade_photos(root: Path, recipes: list[str], worker: int, workers: int) -> None:
    """Fill a worker's slots until the parent ends, alternating between the recipes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([1, worker])
    chosen = [(recipe.margin, degradations(recipe)) for recipe in map(load_recipe, recipes)]
    rings = open_rings(root)
    photos: dict[Path, Pixels] = {}
    parent = multiprocessing.parent_process()
    number = -1
    while parent is None or parent.is_alive():  # a killed parent cannot stop its workers
        number += 1
        if number % 200 == 0:
            # Photos that were copied in the meantime are noticed.
            own = sorted((root / "photos").iterdir())[worker::workers]
            photos |= {path: read(path) for path in own if path not in photos}
        margin, parts = chosen[number % len(chosen)]
        place = rng.random()
        degradation = next(part for end, part in parts.items() if place <= end)
        ring = rings[degradation.scale]
        photo = list(photos.values())[int(rng.integers(len(photos)))]
        made = degraded_crop(photo, degradation, ring.degraded.shape[-1], margin, rng)
        if made is not None:
            slot = int(ring.count[worker]) % ring.degraded.shape[1]
            ring.degraded[worker, slot], ring.sharp[worker, slot] = made
            ring.count[worker] += 1


def degraded_crop(
    photo: Pixels,
    degradation: DegradationRecipe,
    side: int,
    margin: int,
    rng: np.random.Generator,
) -> tuple[Pixels, Pixels] | None:
    """Return a random crop and its degraded version; None if the photo is too small.

    The margin, in pixels of the degraded picture, is smaller in low photos.
    """
    scale = degradation.scale
    margin = min(margin, (min(photo.shape[1:]) // scale - side) // 2)
    if margin < 1:
        return None
    wanted = (side + 2 * margin) * scale
    top, left = (int(rng.integers(length - wanted + 1)) for length in photo.shape[1:])
    (crop,) = turned([photo[:, top : top + wanted, left : left + wanted]], rng, colours=False)
    y, x = (length / 2 - rng.random() * (length - wanted) for length in PICTURE)
    parameters = draw(degradation, rng, picture=PICTURE, centre=(x, y))
    sharp = torch.from_numpy(crop)[None].float() / 255
    with torch.inference_mode():
        pair = degrade(sharp, [parameters], degradation, margin=margin * scale)
    degraded, reference = (to_uint(map_[0], 8).numpy() for map_ in pair)
    return degraded, reference


def turned(maps: list[Pixels], rng: np.random.Generator, *, colours: bool = True) -> list[Pixels]:
    """Return the maps in one of eight orientations and one of six orders of the colours."""
    made = flip_and_rotate([torch.from_numpy(map_) for map_ in maps], rng)
    order = rng.permutation(3) if colours else slice(None)
    return [map_.numpy()[order] for map_ in made]


def make_rings(root: Path, recipes: list[str], workers: int, slots: int) -> None:
    """Create the buffers, one for each scale, as sparse files; then a note of their sizes."""
    sides: dict[int, int] = {}
    for name in recipes:
        recipe = load_recipe(name)
        for degradation in degradations(recipe).values():
            sides[degradation.scale] = max(recipe.pool_side, sides.get(degradation.scale, 0))
    facts = [{"scale": s, "side": n, "workers": workers, "slots": slots} for s, n in sides.items()]
    for each in facts:
        Ring(root, **each)
    (root / "rings.json").write_text(json.dumps(facts))


def open_rings(root: Path) -> dict[int, Ring]:
    """Return the buffers by scale."""
    facts = json.loads((root / "rings.json").read_text())
    return {each["scale"]: Ring(root, **each) for each in facts}


class Crops(IterableDataset[tuple[Tensor, ...]]):
    """Batches of crops, uint8: degraded and sharp ones, then blurred and sharp ones of pairs."""

    def __init__(self, root: Path, scale: int, patch: int, batch: int, paired: float) -> None:
        self.root, self.scale, self.patch = root, scale, patch
        self.pairs = round(batch * paired)
        self.items = batch - self.pairs

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        torch.set_num_threads(1)
        info = get_worker_info()
        rng = np.random.default_rng([2, info.id if info else 0])
        ring, large = open_rings(self.root)[self.scale], self.patch * self.scale
        pairs = [pair for pair in self._read_pairs() if min(pair[0].shape[1:]) >= large]
        while True:
            items = [self._item(ring, rng) for _ in range(self.items)]
            crops = [
                turned(_cut(pairs[int(rng.integers(len(pairs)))], [1, 1], large, rng), rng)
                for _ in range(self.pairs)
            ]
            columns = [*zip(*items, strict=True), *zip(*crops, strict=True)]
            yield tuple(torch.from_numpy(np.stack(column)) for column in columns)

    def _item(self, ring: Ring, rng: np.random.Generator) -> list[Pixels]:
        while not (begun := np.flatnonzero(ring.count)).size:
            time.sleep(0.1)
        worker = int(rng.choice(begun))
        slot = int(rng.integers(min(int(ring.count[worker]), ring.degraded.shape[1])))
        maps = [ring.degraded[worker, slot], ring.sharp[worker, slot]]
        return turned(_cut(maps, [1, self.scale], self.patch, rng), rng)

    def _read_pairs(self) -> Iterator[list[Pixels]]:
        for path in sorted((self.root / "pairs/blur").iterdir()) if self.pairs else []:
            both = [read(path), read(self.root / "pairs/sharp" / path.name)]
            for size in SHRUNK:
                yield [_resized(map_, size) for map_ in both]


def _resized(map_: Pixels, size: float) -> Pixels:
    height, width = (round(length * size) for length in map_.shape[1:])
    made = resize_bicubic(torch.from_numpy(map_)[None].float() / 255, height, width)
    return to_uint(made[0], 8).numpy()


def _cut(
    maps: list[Pixels], ratios: list[int], side: int, rng: np.random.Generator
) -> list[Pixels]:
    """Cut the same random square out of all maps, with sides and positions times the ratios."""
    top, left = (int(rng.integers(length - side + 1)) for length in maps[0].shape[1:])
    return [
        map_[:, top * n : (top + side) * n, left * n : (left + side) * n]
        for map_, n in zip(maps, ratios, strict=True)
    ]


def to_batch(maps: tuple[Tensor, ...], scale: int, wanted: Collection[str], device: str) -> Batch:
    """Crops as a batch on the device; the blurred half of x4 pairs is downscaled there."""
    low, high, *pair = (map_.to(device, non_blocking=True).float() / 255 for map_ in maps)
    if pair:
        blurred, sharp = pair
        side = blurred.shape[-1] // scale
        small = quantise(resize_bicubic(blurred, side, side)) if scale > 1 else blurred
        low, high = torch.cat([low, small]), torch.cat([high, sharp])
    return Batch(low, make_targets(wanted, low, high, None))


def narrow_norms(network: nn.Module) -> None:
    """Compute layer norms in the dtype of their input: autocast converts every map to float32."""

    def forward(norm: nn.LayerNorm, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
            return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)

    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.forward = partial(forward, module)  # type: ignore[method-assign]


def gains(network: nn.Module, folder: Path, scale: int, device: str) -> str:
    """Gain in dB over the interpolated picture, mean and smallest, on each set of pairs."""
    report = []
    for pairs in sorted(folder.glob("*")):
        each = []
        for path in sorted((pairs / "lr").iterdir()):
            both = (torch.from_numpy(read(pairs / half / path.name)) for half in ("lr", "hr"))
            low, high = (map_[None].to(device).float() / 255 for map_ in both)
            base = resize_bicubic(low, *high.shape[-2:]) if scale > 1 else low
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                made = network(low.contiguous(memory_format=torch.channels_last)).float()
            scores = (float(psnr(quantise(x.clamp(0, 1)), high, crop=4)) for x in (made, base))
            each.append(next(scores) - next(scores))
        report.append(f"{pairs.name} {np.mean(each):+.3f} ({min(each):+.2f})")
    return ", ".join(report) or "nothing to check"


def fused(trainer: Trainer) -> torch.optim.AdamW:
    """Return the trainer's AdamW in one kernel, which also skips steps."""
    groups = [
        {key: group[key] for key in ("params", "scale", "betas", "weight_decay")}
        for group in trainer.optimizer.param_groups
    ]
    return torch.optim.AdamW(groups, lr=trainer.phase.learning_rate, fused=True)


def train_step(trainer: Trainer, optimizer: torch.optim.AdamW, batch: Batch, rate: float) -> Tensor:
    """One step, and its loss. Unlike the trainer's, it never waits for the GPU."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    optimizer.zero_grad(set_to_none=True)
    terms = compute_losses(trainer._outputs, trainer.phase.losses, batch, torch.bfloat16)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [p for p in trainer.network.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(trained, trainer.phase.clip or math.inf)
    # A gradient that is not finite skips the step, as a scaler of gradients does it.
    optimizer.grad_scale, optimizer.found_inf = None, (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    optimizer.step()
    trainer.ema.update(trainer.network)
    return loss.detach()


def fine_tune(root: Path, recipe_name: str, weights: str, seconds: float, device: str) -> None:
    """Train one checkpoint for some seconds, and write the average."""
    loaded = load_network(locate(weights, None))
    recipe = for_weights(load_recipe(recipe_name), loaded)
    recipe = recipe.model_copy(update={"phases": recipe.phases[-1:], "parts": {}})
    trainer = Trainer(recipe, ProcessGroup(torch.device(device)), Execution(torch.bfloat16))
    before = {name: tensor.clone() for name, tensor in loaded.network.state_dict().items()}
    trainer.start_from(loaded)
    phase, scale, average = trainer.phase, loaded.model.scale, trainer.ema
    for network in (trainer.network, average.module):
        narrow_norms(network)
    optimizer = fused(trainer)
    paired = sum(part.probability for part in recipe.mixture if part.data == "pairs")
    crops = Crops(root, scale, phase.patch, phase.batch, paired)
    gpu = device == "cuda"
    batches = iter(DataLoader(crops, None, num_workers=3 if gpu else 0, pin_memory=gpu))
    check = partial(gains, folder=root / f"check/x{scale}", scale=scale, device=device)
    print(weights, "before:", check(trainer.network), flush=True)
    torch.backends.cudnn.benchmark = True

    def save() -> None:
        state = {name: t.detach().cpu() for name, t in average.module.state_dict().items()}
        tensors = {n: t.half() for n, t in state.items() if not torch.equal(t, before[n])}
        target = root / "out" / f"{weights}.pt"
        target.parent.mkdir(exist_ok=True)
        facts = {"recipe_name": recipe_name, "steps": step, "patches": step * phase.batch}
        with write_then_rename(target) as temporary:
            torch.save({"tensors": tensors, "facts": facts}, temporary)

    step, total = 0, torch.zeros((), device=device)
    begun = saved = logged = time.monotonic()
    while (now := time.monotonic()) - begun < seconds:
        rate = 0.5 * (1 + math.cos(math.pi * (now - begun) / seconds))
        rate *= phase.learning_rate * min(1, (step + 1) / max(phase.warm_up, 1))
        batch = to_batch(next(batches), scale, trainer.wanted, device)
        total += train_step(trainer, optimizer, batch, rate)
        step += 1
        if now - logged > LOG_SECONDS:
            pace = step * phase.batch / (now - begun)
            mean = float(total) / step
            print(f"{weights} {now - begun:.0f} s, step {step}, loss {mean:.4f}, {pace:.0f}/s")
            logged = now
        if now - saved > SAVE_SECONDS:
            save()
            saved = now
    save()
    torch.backends.cudnn.benchmark = False
    print(weights, f"after {step} steps of {phase.batch}:", check(average.module), flush=True)


def shortened(tensor: Tensor, bits: int) -> Tensor:
    """Round to float16 with `bits` of its 10 bits of mantissa: each bit less compresses by 6 %."""
    last = 1 << (10 - bits)
    pattern = tensor.half().view(torch.int16).int() + last // 2  # carries into the exponent
    return (pattern & -last).to(torch.int16).view(torch.float16)


def export(result: Path, weights: str, target: Path, part: float, bits: int) -> None:
    """Write the mean of a run's result, with weight `part`, and of the weights it started from."""
    loaded = load_network(locate(weights, None))
    before, content = loaded.network.state_dict(), read_checkpoint(locate(weights, None).path)
    run = torch.load(result, weights_only=True)
    mixed = {
        name: part * tensor.float() + (1 - part) * before[name]
        for name, tensor in run["tensors"].items()
    }
    base = {"weights": weights, "sha256": content.sha256, "license": loaded.file.license}
    facts = run["facts"] | {"base": base, "mean": part, "version": __version__}
    assert content.header is not None
    header = dataclasses.replace(content.header, provenance=facts)
    tensors = {name: shortened(t, bits) for name, t in (content.tensors | mixed).items()}
    write_checkpoint(target, tensors, header)


def main() -> None:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    filling = commands.add_parser("degrade")
    filling.add_argument("root", type=Path)
    filling.add_argument("recipes", nargs="+")
    filling.add_argument("--workers", type=int, default=13)
    filling.add_argument("--slots", type=int, default=12_000, help="crops of each scale")
    exporting = commands.add_parser("export")
    exporting.add_argument("result", type=Path)
    exporting.add_argument("weights")
    exporting.add_argument("target", type=Path)
    exporting.add_argument("--mean", type=float, default=1.0, help="weight of the result")
    exporting.add_argument("--bits", type=int, default=10, help="of the mantissa")
    training = commands.add_parser("train")
    training.add_argument("root", type=Path)
    training.add_argument("runs", nargs="+", help="RECIPE WEIGHTS SECONDS, repeated")
    arguments = parser.parse_args()
    if arguments.command == "export":
        paths = arguments.result, arguments.weights, arguments.target
        export(*paths, arguments.mean, arguments.bits)
        return
    if arguments.command == "degrade":
        make_rings(arguments.root, arguments.recipes, arguments.workers, arguments.slots)
        context = multiprocessing.get_context("spawn")
        for worker in range(arguments.workers):
            given = (arguments.root, arguments.recipes, worker, arguments.workers)
            context.Process(target=degrade_photos, args=given).start()
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    failed = False
    runs = iter(arguments.runs)
    for recipe, weights, seconds in zip(runs, runs, runs, strict=True):
        try:
            fine_tune(arguments.root, recipe, weights, float(seconds), device)
        except Exception:  # noqa: BLE001  the next run must not lose the time that it was given
            traceback.print_exc()
            failed = True
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
