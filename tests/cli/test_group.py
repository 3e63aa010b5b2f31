"""The command line's form: what is no command, errors of one style, help that can be copied."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import typer
from conftest import restore
from typer.main import get_command
from typer.testing import CliRunner

from restore_cli.cli import _group
from restore_cli.cli._complete import (
    OPTION_VALUES,
    degradations,
    models,
    training_recipes,
    values_of,
    weights,
)
from restore_cli.cli.app import app
from restore_cli.cli.train import _resuming
from restore_cli.datasets.registry import DATASETS
from restore_cli.degradations.recipe import shipped_degradations
from restore_cli.inference.stages import BICUBIC
from restore_cli.jobs import plan
from restore_cli.models.registry import MODELS
from restore_cli.training.recipe import ablations, shipped_recipes
from restore_cli.version import __version__
from restore_cli.weights.manifest import load_manifest

ROOT_COMMAND = typer.main.get_command(app)


def run(*words: str):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "80"}, prog_name="restore")


def every_command(command=ROOT_COMMAND, names=()):
    yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, (*names, name))


COMMANDS = [(" ".join(names), command) for names, command in every_command()]


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["imag", "x"], "error: command 'imag' not found. Did you mean 'image'?", "hint: known: "),
        (["image", "--scal", "3"], "error: option '--scal' not found. Did you mean '--scale'?", ""),
        (
            ["image", "a.png", "-x", "many"],
            "error: --scale 'many' is not a whole number from 1 to 8",
            "",
        ),
        (["image", "a.png", "-x", "9"], "error: --scale '9' is not a whole number from 1 to 8", ""),
        (["train", "--minutes", "-1"], "error: --minutes '-1' is not a number of at least 0", ""),
        (["image", "a.png", "-m", ""], "error: --model is empty", "hint: is a shell variable"),
        (
            ["models", "list", "all"],
            "error: unexpected argument 'all'",
            "hint: restore models list",
        ),
        (["image", "--raw", "99999x9"], "error: --raw '99999x9' must have sides between", ""),
        (["train", "gfn", "--data", "none", "-o", "x"], "error: no such folder: --data 'none'", ""),
        (["image", "a" * 300], "error: cannot use 'aaa", ""),
        (["image", "a.png", "--workers", "2"], "error: --workers needs --engine ray", ""),
        (["info", "none.png"], "error: no such file, and no weights of that name: 'none.png'", ""),
        (["info"], "error: missing argument 'FILE'", "hint: restore info --help"),
        (["models", "info"], "error: missing argument 'NAME'", "hint: restore models info --help"),
        (["models", "info", ""], "error: NAME is empty", "hint: is a shell variable"),
        (["weights", "verify", ""], "error: NAME is empty", "hint: is a shell variable"),
        (["weights", "add", "x", "--license", ""], "error: --license is empty", ""),
        (["serve", "--allow-host", ""], "error: --allow-host is empty", ""),
        (["models", "lst"], "error: command 'lst' not found. Did you mean 'list'?", ""),
        (["upscale", "a.png"], "error: command 'upscale' not found. Use `restore image`.", ""),
        (["ls"], "error: command 'ls' not found. Use `restore models`, `restore", ""),
        (["export", "gfn", "--to", "onnx"], "error: command 'export' not found. Use", ""),
        (
            ["weights", "rm", "x"],
            "error: command 'rm' not found. Use `restore weights remove`.",
            "",
        ),
        (["weights", "info", "x"], "error: command 'info' not found. Use `restore info`.", ""),
        (["models", "ls"], "error: command 'ls' not found. Use `restore models list`.", ""),
        (["models", "show"], "error: command 'show' not found. Use `restore models info`.", ""),
        (["models", "rm"], "error: command 'rm' not found.", "hint: known: info, list"),
        (["no-such.png"], "error: no such file or folder: 'no-such.png'", ""),
        (["image", "a.png", "--tta"], "error: option '--tta' not found. Use --self-ensemble.", ""),
        (["a.png", "-g", "0"], "error: option '-g' not found. Use --device, e.g. --device", ""),
        (["image"], "error: no pictures were given", "hint: restore image --help"),
    ],
)
def test_errors_have_one_style(words, error, hint):
    result = run(*words)
    assert result.exit_code in (2, 3)
    lines = result.stderr.splitlines()
    assert lines[0].startswith(error)
    assert all(line.startswith(("error: ", "hint: ")) for line in lines)
    assert not hint or lines[1].startswith(hint)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RESTORE_IMAGE_SCALE", "abc", "'abc' is not a whole number from 1 to 8"),
        ("RESTORE_IMAGE_DRY_RUN", "maybe", "'maybe' is neither 1 nor 0"),
        ("RESTORE_OFFLINE", "nope", "'nope' is neither 1 nor 0"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    result = run("image", "a.png")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"error: {name} {message}")


def test_variables_without_an_option_are_announced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    monkeypatch.setenv("RESTORE_IMAGE_MODLE", "gfn")
    for command in ("image", "restore"):
        said = run(command, "a.png", "--model", "gfm").stderr
        assert "variable RESTORE_IMAGE_MODLE. Did you mean 'RESTORE_IMAGE_MODEL'?" in said
        assert "MODLE" not in run(command, "a.png", "--model", "gfm", "-q").stderr
    monkeypatch.delenv("RESTORE_IMAGE_MODLE")
    monkeypatch.setenv("RESTORE_IMAGE_MODEL", "gfm")
    for command in ("image", "restore"):
        assert "model 'gfm' not found" in run(command, "a.png").stderr


def test_variables_cannot_ask_for_help_or_install_completion(monkeypatch):
    monkeypatch.setenv("RESTORE_HELP", "1")
    monkeypatch.setenv("RESTORE_INSTALL_COMPLETION", "1")
    assert run("--version").stdout == f"restore {__version__}\n"
    assert "nothing.png" in run("info", "nothing.png").stderr
    assert "env var" not in run("--help").stdout


def test_a_timeout_that_the_hub_cannot_read_is_ignored_aloud(monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "60s")
    assert "HF_HUB_DOWNLOAD_TIMEOUT '60s' is not a whole number" in run("info", "none.png").stderr
    assert "HF_HUB_DOWNLOAD_TIMEOUT" not in os.environ


@pytest.mark.parametrize(
    ("words", "offered"), [("restore help im", ["image"]), ("restore nosuch --mo", [])]
)
def test_completion_after_words_that_are_no_commands(monkeypatch, words, offered):
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_RESTORE_COMPLETE", "complete_bash")
    result = run()
    assert (result.stdout.split(), result.stderr) == (offered, "")


@pytest.mark.parametrize("current", ["", "abc"])
def test_completion_with_broken_variables_is_quiet(monkeypatch, current):
    monkeypatch.setenv("_RESTORE_COMPLETE", "complete_bash")
    if current:
        monkeypatch.setenv("COMP_WORDS", "restore image -m ")
        monkeypatch.setenv("COMP_CWORD", current)
    result = run()
    assert (result.exit_code, result.output) == (1, "")
    assert isinstance(result.exception, SystemExit)


def test_completion_that_cannot_be_installed_is_one_line(monkeypatch):
    def denied(**_):
        raise PermissionError(13, "Permission denied", "/home/a/.bashrc")

    monkeypatch.setattr("typer.completion.install", denied)
    result = run("--install-completion", "bash")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: cannot write '/home/a/.bashrc'")
    assert "hint: use --show-completion" in result.stderr


def test_a_current_folder_that_is_gone_is_an_error(monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("pathlib.Path.cwd", gone)
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the current folder no longer exists" in result.stderr


def test_a_wrong_value_from_a_variable_is_traced_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RESTORE_IMAGE_TILE", "abc")
    said = run("image", str(tmp_path / "a.png")).stderr
    assert "'abc' is the value of RESTORE_IMAGE_TILE" in said
    monkeypatch.setattr("sys.argv", ["restore", "image", "a.png", "--tile", "abc"])
    assert "RESTORE" not in run("image", str(tmp_path / "a.png"), "--tile", "abc").stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes differ")
def test_help_is_quiet_on_a_closed_pipe():
    code = "import sys; from restore_cli.cli.app import main; sys.argv[1:] = ['--help']; main()"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_and_version_are_words_too():
    assert run("version").stdout == f"restore {__version__}\n"
    assert run("help").stdout == run("--help").stdout
    assert run("help", "image").stdout == run("image", "--help").stdout
    assert run("help", "weights", "list").stdout == run("weights", "list", "--help").stdout


@pytest.mark.parametrize("words", [["photo.png"], ["photo.png", "--dry-run"], ["."], ["*.png"]])
def test_a_picture_is_a_job(tmp_path, monkeypatch, words):
    """Whatever `restore image` says of it, so does `restore`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"no picture")
    short, long = run(*words, "-m", "none"), run("image", *words, "-m", "none")
    assert (short.exit_code, short.stderr) == (long.exit_code, long.stderr)
    assert "model 'none' not found" in short.stderr


@pytest.mark.parametrize(
    ("name", "command"), COMMANDS, ids=[name or "restore" for name, _ in COMMANDS]
)
def test_help_shows_no_types_and_examples_to_paste_at_80_columns(name, command):
    said = run(*name.split(), "--help").stdout
    assert "<" not in said.replace("< FILE", "")
    assert " [x" not in said
    for one in command.params:
        if one.param_type_name == "option" and one.metavar:
            assert one.metavar[0].isupper() or "|" in one.metavar or one.metavar[0] in "{W", (
                one.name
            )
    lines = [line.strip() for line in said.splitlines()]
    for line in (command.epilog or "").splitlines():
        if line.strip().startswith(("restore ", "cat ", "find ", "ffmpeg ")):
            assert line.strip() in lines


def test_completion_knows_what_there_is():

    assert set(models()) == {*MODELS, BICUBIC}
    assert set(weights()) >= set(load_manifest().checkpoints)
    assert set(values_of("benchmark", "dataset")) == set(DATASETS)
    assert list(training_recipes()) == [*shipped_recipes(), *ablations()]
    assert set(degradations()) == set(shipped_degradations())
    assert set(OPTION_VALUES["format_"]) == set(plan.FORMATS)


def test_tab_completes_without_torch():
    code = (
        "import sys\n"
        "from restore_cli.cli._complete import degradations, models, training_recipes, weights\n"
        "assert list(models()) and list(weights()) and list(training_recipes())\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("restore image --model max", {"maxim", "maxim-mscam"}),
        ("restore image --model gfn+bi", {"gfn+bicubic"}),
        ("restore image --on-exists s", {"skip"}),
        (
            "restore train fine",
            {"finetune", "finetune-x1", "finetune-x1-photos", "finetune-x4", "finetune-x4-gpu"},
        ),
        ("restore degrade --recipe shake-m", {"shake-mild", "shake-mixed"}),
    ],
)
def test_a_shell_completes(line, expected):
    environment = {
        "_RESTORE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    result = CliRunner().invoke(app, [], env=environment, prog_name="restore")
    assert set(result.stdout.split()) == expected


@pytest.mark.parametrize(
    ("typed", "several", "expected"),
    [
        (("gfn", "--data", "a b"), False, "restore train gfn --data 'a b' --resume auto"),
        (("--data", "a", "--", "gfn"), False, "restore train --data a --resume auto -- gfn"),
        (("gfn",), True, "torchrun ... -m restore_cli train gfn --resume auto"),
    ],
)
def test_the_command_that_continues_a_run(typed, several, expected, monkeypatch):
    if several:
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert _resuming(["train", *typed]) == expected


@pytest.mark.parametrize("option", [("--minutes", 5), ("--dry-run",), ("--resume", "auto")])
def test_options_of_a_run_need_a_recipe(option):
    done = restore("train", *option)
    assert done.exit_code == 2
    assert "RECIPE is missing" in done.stderr


def test_commands_that_are_pointed_to_exist():
    root = get_command(app)
    uses = [
        use for text in _group._COMMANDS.values() for use in re.findall("`restore (.*?)`", text)
    ]
    assert len(uses) > len(_group._COMMANDS)
    for use in uses:
        found = root
        for word in use.partition(" --")[0].split():
            found = found.commands[word]
