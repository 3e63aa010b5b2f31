"""`restore compare`."""

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors
from restore_cli.errors import NoInputError, PictureError, lookup

if TYPE_CHECKING:
    from torch import Tensor

EPILOG = """
Examples:
  restore compare blurry.png sharp.png
  restore compare blurry.png sharp.png --reference original.png
  restore compare blurry.png sharp.png -o before-after.html
"""


@handle_errors
def compare(
    before: Annotated[str, typer.Argument(help="A picture.", metavar="BEFORE")],
    after: Annotated[
        str, typer.Argument(help="Another one, as large as BEFORE or larger.", metavar="AFTER")
    ],
    reference: Annotated[
        str | None,
        opt.option(help="What both should look like; as large as AFTER.", metavar="FILE"),
    ] = None,
    protocol: Annotated[
        str,
        opt.option(
            help="Protocol of the scores; see `restore datasets protocols`.", metavar="NAME"
        ),
    ] = "rgb",
    output: Annotated[
        str | None,
        opt.option(
            "--output",
            "-o",
            help="Also write both side by side (.png) or with a slider (.html).",
            metavar="FILE",
        ),
    ] = None,
    on_exists: Annotated[
        str, opt.option(help="If that file exists: error or overwrite.", metavar="POLICY")
    ] = "error",
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Compare two pictures: PSNR and SSIM, and both beside each other.

    Without --reference, BEFORE is scored against AFTER. A smaller BEFORE is
    enlarged by bicubic interpolation first.
    """
    from restore_cli.benchmarking.protocol import PROTOCOLS
    from restore_cli.jobs.compare import check_comparison_file, write_comparison
    from restore_cli.jobs.plan import Item
    from restore_cli.jobs.run import Outcome

    paths = opt.parse_path(before), opt.parse_path(after)
    chosen = lookup("protocol", protocol, PROTOCOLS)
    page = opt.parse_path(output) if output is not None else None
    item = Item(*paths)
    if page is not None:
        lookup("--on-exists policy", on_exists, dict.fromkeys(("error", "overwrite")))
        check_comparison_file(page, [item], on_exists, option="--output")
    first, second = map(_read, paths)
    size = (second.shape[-2], second.shape[-1])
    target = second if reference is None else _read(opt.parse_path(reference))
    if tuple(target.shape[-2:]) != size:
        raise PictureError(
            f"'{reference}' is {target.shape[-1]}x{target.shape[-2]}, but '{after}' is "
            f"{size[1]}x{size[0]}",
            hint="the reference must be as large as the second picture",
        )
    if min(size) < chosen.smallest:
        raise PictureError(
            f"'{after}' is {size[1]}x{size[0]}, too small for protocol '{chosen.name}'",
            hint=f"it needs {chosen.smallest} px a side",
        )
    scored = [(before, first), (after, second)][: 1 if reference is None else 2]
    rows = []
    for name, pixels in scored:
        scores = chosen.score(chosen.quantise(_enlarged(pixels, size)), [target])
        rows.append((name, scores.psnr, scores.ssim))
    if json:  # which has no infinity, the PSNR of equal pictures
        keys = ("picture", "psnr", "ssim")
        finite = [tuple(None if one == inf else one for one in row) for row in rows]
        out.echo_json([dict(zip(keys, row, strict=True)) for row in finite])
    else:
        cells = [(name, f"{psnr:.3f} dB", f"{ssim:.4f}") for name, psnr, ssim in rows]
        out.table(("picture", "PSNR", "SSIM"), cells)
    if page is not None:
        outcome = Outcome(item, "restored", size=size)
        write_comparison(page, [outcome], f"{before} and {after}.")
        out.note(f"before and after: {page}")


def _read(path: Path) -> "Tensor":
    """Read a picture as sRGB, (1, 3, H, W) in [0, 1]."""
    from restore_cli.image import read_image

    if not path.exists():
        raise NoInputError(f"no such file '{path}'", hint="give the path of a picture")
    return read_image(path, max_pixels=2**62).pixels


def _enlarged(pixels: "Tensor", size: tuple[int, int]) -> "Tensor":
    """Resample a picture to a height and width by bicubic interpolation."""
    from restore_cli.resample import resize_bicubic

    return pixels if tuple(pixels.shape[-2:]) == size else resize_bicubic(pixels, *size)
