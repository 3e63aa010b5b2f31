"""`restore degrade`."""

from __future__ import annotations

from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, show

EPILOG = """
Examples:

  restore degrade sharp.png -o blurry.png --seed 7

  restore degrade photos/*.jpg -o pairs/ --recipe shake-mixed
"""


@reported
def degrade(
    inputs: Annotated[
        list[str], typer.Argument(help="Sharp pictures, or folders of them.", metavar="INPUT")
    ],
    output: Annotated[
        str,
        opt.option(
            "--output", "-o", help="A folder for lr/, hr/ and records/, or a file for one picture."
        ),
    ],
    recipe: Annotated[
        str, opt.option("--recipe", help="A shipped recipe's name, or a .toml file.")
    ] = "shake",
    seed: Annotated[int, opt.option(help="Same seed, same pictures.", min=0)] = 0,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Make blurry, small pictures out of sharp ones, with what was drawn for each as JSON."""
    from restore_cli.degradations.recipe import load_degradation
    from restore_cli.jobs import pictures
    from restore_cli.pairs import DegradeJob, make_pairs, plan_pairs

    sources = [source for text in inputs for source in pictures(opt.parse_path(text))]
    job = DegradeJob(tuple(sources), opt.parse_path(output), load_degradation(recipe), seed)
    plan_pairs(job)
    failed = 0
    with out.progress_bar(quiet=quiet, unit="pictures") as bar:
        task = bar.add_task(job.recipe.name, total=len(sources))
        for path, error in make_pairs(job):
            bar.advance(task)
            if error:
                show(error)
                failed += 1
            else:
                out.data(str(path))
    if failed:
        raise typer.Exit(1)
