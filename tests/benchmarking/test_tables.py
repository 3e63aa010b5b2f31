"""The papers' tables: whole, reachable by a command, and beside what is measured here."""

from __future__ import annotations

import dataclasses
import json
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_CONFIGS, picture, rgb8
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from restore_cli.benchmarking.protocol import PROTOCOLS
from restore_cli.benchmarking.published import (
    columns_of,
    get_table,
    load_published,
    published_on,
    rows_of,
    table_parts,
)
from restore_cli.cli.app import app
from restore_cli.datasets.registry import DATASETS, VIDEOS
from restore_cli.errors import UsageError
from restore_cli.models.registry import MODELS
from restore_cli.training.recipe import load_recipe, shipped_recipes
from restore_cli.training.trainer import model_and_config
from restore_cli.weights.checkpoint import CheckpointHeader, write_checkpoint

ROWS = [(table, row) for table in load_published().tables for row in table.rows]
NAMES = sorted({table.name for table in load_published().tables})


def restore(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def test_the_file_fits_the_rest():
    assert len(ROWS) > 190
    assert {table.paper for table in load_published().tables} == set(load_published().papers)
    for table in load_published().tables:
        assert not table.dataset or table.dataset in DATASETS
        assert not table.protocol or table.protocol in PROTOCOLS
        assert (table.kind in ("comparison", "ablation")) <= bool(table.dataset and table.protocol)
        if table.also:
            assert any(t.dataset == table.dataset for t in get_table(f"{table.paper}/{table.also}"))
    keys = [(table.name, table.dataset) for table in load_published().tables]
    assert len(set(keys)) == len(keys)
    for _, row in ROWS:
        assert row.protocol in {"", "unstated", *PROTOCOLS}
        assert row.psnr is None or 10 < row.psnr < 45
        for similarity in (row.ssim, row.ms_ssim):
            assert similarity is None or Decimal("0.3") < similarity < 1
        if row.recipe:
            assert row.config in MODELS[row.model].configs
        else:
            assert row.model in {"", "bicubic"}
    assert set(load_published().weights) <= set(MODELS)
    for model, theirs in load_published().weights.items():
        assert set(theirs.recipes) <= set(shipped_recipes())
        assert bool(theirs.file) == (model != "moadg")


def test_digits_are_the_printed_ones():
    rows = get_table("shoyan-2022/1")[0].rows
    assert str(rows[-2].psnr) == "27.620"
    assert str(rows[-1].ssim) == "0.7760"
    (table,) = get_table("xu-2021/3")
    for row in table.rows:
        mean = sum(row.psnr_per_video) / len(VIDEOS)
        assert len(row.psnr_per_video) == len(VIDEOS)
        assert abs(mean - row.psnr) < Decimal("0.011"), row.method


@pytest.mark.parametrize(
    ("table", "row"), [(t, r) for t, r in ROWS if r.recipe], ids=lambda value: ""
)
def test_recipes_train_the_network_of_the_row(table, row):
    model, config = model_and_config(load_recipe(row.recipe))
    assert model.name == row.model
    assert config == model.configs[row.config]
    if row.model == "mprnet-mscam" and "residual_groups" in row.variant:
        assert row.variant["residual_groups"] == config.sr_groups
        assert row.variant["rms_cab"] == config.sr_groups * config.sr_blocks
    if row.model == "gfn" and row.variant:
        assert row.variant["gate"] == config.gate
        assert row.variant["deblurring_module"] == bool(config.deblur_blocks)
        assert row.variant["feature_level"] == (
            config.arrangement == 0 and config.deblur_blocks > 0
        )
    if row.model == "moadg" and row.variant:
        assert row.variant["dropout_gating"] == config.gating
        assert row.variant["third_order_attention"] == config.third_order
    if row.model == "msan" and row.variant:
        assert row.variant["attention"] == config.attention
        loss = {"bce": "cross_entropy"}.get(row.variant["loss"], row.variant["loss"])
        assert [t.loss for t in load_recipe(row.recipe).phases[0].losses] == [loss]
    for name, field in (
        ("channel_attention", "channel"),
        ("spatial_attention_encoder", "spatial_encoder"),
        ("spatial_attention_decoder", "spatial_decoder"),
        ("weight_sharing", "shared"),
    ):
        if name in row.variant:
            assert row.variant[name] == getattr(config, field)


OTHER_SIZES = {  # printed -> the published code, or our reading of the paper; the rows say so
    ("chu-2022/2", "gfn"): 11,
    ("chu-2022/2", "moadg"): 27,
}


@pytest.mark.parametrize(
    ("table", "row"), [(t, r) for t, r in ROWS if r.recipe and (r.params_m or r.size_mb)],
    ids=lambda value: "",
)  # fmt: skip
def test_sizes_are_the_printed_ones(table, row):
    model = MODELS[row.model]
    with torch.device("meta"):
        network = model.build(model.configs[row.config])
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    if (table.name, row.model) in OTHER_SIZES:
        assert row.params_m == OTHER_SIZES[table.name, row.model]
        assert f"{millions:.1f}" in row.odd
    elif row.params_m:
        assert f"{millions:.2f}" == str(row.params_m)
    else:  # 10^6 bytes or 2^20, as the paper counts
        sizes = (millions * 4, millions * 4e6 / 2**20)
        assert min(abs(size - float(row.size_mb)) for size in sizes) < 0.25


def test_assumptions_are_options_of_the_command():
    command = get_command(app).commands["benchmark"]
    options = {name.removeprefix("--") for option in command.params for name in option.opts}
    for table in load_published().tables:
        assert set(table.assumptions) <= options, table.name
        assert (table.timing is not None) <= ("warm-up" in table.assumptions)
    for table in load_published().tables:
        if any(row.time_s is not None for row in table.rows):
            assert table.timing is not None, table.name


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_reachable_by_a_command(name, tmp_path):
    """Printed at once, or measured on a small dataset of the right shape."""
    measured = table_parts(name)
    if not measured:
        done = restore("--table", name)
        assert done.exit_code == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == sum(len(table.rows) for table in get_table(name))
        assert [line.split("\t")[0] for line in lines] == [
            row.method for table in get_table(name) for row in table.rows
        ]
        return
    assert [table.dataset for table in measured] == [t.dataset for t in get_table(name)]
    for table in measured:
        assert [row for _, row in table.lines()][: len(table.rows)] == list(table.rows)
        ours = {row.model for _, row in table.lines() if row.is_authors_result}
        assert {MODELS[name].scale for name in ours} <= {DATASETS[table.dataset].scale}
    done = restore("--table", name, "--data-root", tmp_path)
    assert done.exit_code == 3, done.stderr
    assert f"'{measured[0].dataset}' is not in" in done.stderr


def test_the_list_names_every_table():
    listed = [line.split("\t") for line in restore("--table", "list").stdout.splitlines()]
    assert [line[0] for line in listed] == [table.name for table in load_published().tables]
    for one in json.loads(restore("--table", "list", "--json").stdout):
        assert one["name"] in NAMES
    assert "Did you mean 'shoyan-2022/1'" in restore("--table", "shoyan-2022/11").stderr


def test_printed_tables_say_what_they_have():
    (table,) = get_table("shoyan-2022/datasets")
    assert columns_of(table) == ("method", "facts", "remarks")
    assert "train pairs 24000" in rows_of(table)[0][1]
    (table,) = get_table("chu-2022/1")
    assert "no depth variation" in rows_of(table)[1][1]
    assert json.loads(restore("--table", "xu-2021/datasets", "--json").stdout)["rows"]


def test_parts_of_a_table():
    assert [t.dataset for t in table_parts("zhang-2018/1")] == ["gopro-x4", "kohler-x4"]
    assert [t.dataset for t in table_parts("guo-2022/3", "hide-2")] == ["hide-2"]
    assert [t.dataset for t in table_parts("guo-2022/3", "gopro-linear")] == ["gopro"]
    assert [t.dataset for t in table_parts("guo-2022/1", "somewhere")] == ["gopro"]
    with pytest.raises(UsageError, match="has no part for dataset 'lai'"):
        table_parts("guo-2022/3", "lai")
    assert published_on("hide-1") == [(t, r) for t in get_table("guo-2022/2")[:1] for r in t.rows]


@pytest.fixture
def reds(tmp_path, tiny_weights):
    common = ("--data-root", ROOT / "tests/data", "-o", tmp_path / "out", "-d", "cpu")
    return (*common, "--model", f"mprnet-mscam={tiny_weights}")


def report(tmp_path, part=""):
    return json.loads((tmp_path / "out" / part / "report.json").read_text())


@pytest.mark.slow
def test_a_table_sets_everything(tmp_path, reds):
    done = restore("--table", "shoyan-2022/1", *reds)
    assert done.exit_code == 0, done.stderr
    found = report(tmp_path)
    assert (found["table"], found["dataset"]) == ("shoyan-2022/1", "reds-val300")
    assert found["protocol"]["name"] == "shoyan"
    plain, ensemble, bicubic = found["entries"]
    assert [e["facts"]["self_ensemble"] for e in found["entries"]] == [False, True, False]
    assert plain["facts"]["tlsc"] == ensemble["facts"]["tlsc"] != "off"
    assert ensemble["facts"]["name"] == plain["facts"]["name"] + " x8"
    beside = {(r["method"], r.get("self_ensemble", False)): r for r in found["published"]}
    assert len(found["published"]) == 10
    for row, entry in (
        (beside["this paper", False], plain),
        (beside["this paper", True], ensemble),
        (beside["Bicubic", False], bicubic),
    ):
        assert row["entry"] == entry["facts"]["name"]
        assert row["here_minus_there"] == pytest.approx(entry["psnr"] - row["psnr"])
    for part in (
        "weights: another config here, config paper there",
        "restore weights import model_best.pth -o mprnet-mscam.safetensors",
        "data: only a part",
        "assumed: protocol",
    ):
        assert part in beside["this paper", False]["what_differs"]
    assert beside["RCAN", False]["source"] == "shoyan-2022, Table 1, cited there"
    assert "contradiction in the papers: the text says" in beside["RCAN", False]["what_differs"]
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "27.620" in text
        assert "assumed, --protocol" in text


def test_what_is_given_goes_before_the_tables(tmp_path, reds):
    options = ("--protocol", "cnlrn", "--no-tlsc", "--no-self-ensemble", "--formats", "json")
    done = restore("--table", "shoyan-2022/1", *reds, *options)
    assert done.exit_code == 0, done.stderr
    found = report(tmp_path)
    assert found["protocol"]["name"] == "cnlrn"
    only, _ = found["entries"]
    assert only["facts"]["tlsc"] == "off"
    rows = {(r["method"], r.get("self_ensemble", False)): r for r in found["published"]}
    assert rows["this paper", False]["entry"] == only["facts"]["name"]
    for part in ("'cnlrn' here, 'shoyan' there, with 4 px cropped here", "TLSC there"):
        assert part in rows["this paper", False]["what_differs"]
    assert "self-ensemble there" in rows["this paper", True]["what_differs"]
    assert "protocol:" not in rows["Bicubic", False]["what_differs"]


@pytest.mark.slow
def test_tlsc_is_a_switch_and_an_ablation_is_told_by_its_recipe(tmp_path, reds, tiny_network):
    """Model-2 and Model-3 are one network; Model-1 stands beside weights of its own recipe only."""
    ablated = dataclasses.replace(TINY_CONFIGS["mprnet-mscam"])
    header = CheckpointHeader(
        "mprnet-mscam",
        dataclasses.asdict(ablated),
        (32, 32),
        {"recipe_name": "mprnet-mscam-120", "version": "0"},
    )
    write_checkpoint(tmp_path / "ablated.safetensors", tiny_network.state_dict(), header)
    more = ("--model", f"mprnet-mscam={tmp_path / 'ablated.safetensors'}", "--formats", "json")
    done = restore("--table", "shoyan-2022/3", *reds, *more)
    assert done.exit_code == 0, done.stderr
    rows = {}
    for row in report(tmp_path)["published"]:
        rows.setdefault(row["method"], []).append(row)
    assert [r["entry"].endswith("tiny.safetensors no TLSC") for r in rows["Model-2"]] == [True]
    assert [r["entry"].endswith("tiny.safetensors") for r in rows["Model-3"]] == [True]
    assert [r["entry"].endswith("ablated.safetensors no TLSC") for r in rows["Model-1"]] == [True]
    (baseline,) = rows["Baseline"]
    assert baseline["entry"] == ""
    assert "restore train mprnet-mscam-baseline" in baseline["what_differs"]


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = rgb8(image)
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def network(name, folder):
    torch.manual_seed(0)
    config = TINY_CONFIGS[name]
    path = folder / f"{name}.safetensors"
    header = CheckpointHeader(
        name, dataclasses.asdict(config), (32, 32), {"imported_from": "theirs"}
    )
    write_checkpoint(path, MODELS[name].build(config).state_dict(), header)
    return f"{name}={path}"


def test_a_table_on_two_datasets_measures_what_is_there(tmp_path, monkeypatch):
    for frame in (1, 2, 3):
        for kind in ("blur_gamma", "sharp"):
            path = tmp_path / f"GOPRO_Large/test/GOPR1/{kind}/00000{frame}.png"
            save(picture(64, 80, frame), path)
    common = ("--data-root", tmp_path, "-d", "cpu", "--limit", "2", "-o", tmp_path / "out")
    mine = network("gfn", tmp_path)
    done = restore("--table", "zhang-2018/1", *common, "--model", mine, "--warm-up", "0")
    assert done.exit_code == 0, done.stderr
    assert "kohler-x4 is left out: dataset" in done.stderr
    found = report(tmp_path, "gopro-x4")
    assert found["count"] == 2
    assert not (tmp_path / "out/kohler-x4").exists()
    ours = found["entries"][0]
    assert ours["timed"] | {"seconds": 0} == {
        "seconds": 0, "width": 320, "height": 180, "warm_up": 0, "device": "cpu",
    }  # fmt: skip
    readme = next(r for r in found["published"] if r["method"] == "this paper" and "psnr" in r)
    assert readme["table"] == "zhang-2018/readme"
    assert readme["seconds_here"] == ours["timed"]["seconds"] > 0
    assert "time: an unnamed device there, cpu here" in readme["what_differs"]
    assert "restore weights import" not in readme["what_differs"]  # they are imported
    assert (
        "320x180 on cpu, median of 3 runs after 0"
        in (tmp_path / "out/gopro-x4/report.md").read_text()
    )


def test_kohler_enlarged_finds_its_frame(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    sharp = picture(192, 208, 1)
    save(sharp, tmp_path / "kohler/Blurry1_1.png")
    frames = [picture(192, 208, seed) for seed in (5, 1, 6)]
    array = np.stack([rgb8(frame) for frame in frames], -1)
    savemat(tmp_path / "kohler/GroundTruth1_1.mat", {"GroundTruth": array})
    scores = {}
    for name, others in (("kohler", ["attentive-deblur"]), ("kohler-x4", [])):
        done = restore("--dataset", name, "--data-root", tmp_path, "-o", tmp_path / "out",
                       "--model", "bicubic", *others, "--formats", "json")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        entries = report(tmp_path)["entries"]
        scores[name] = entries[0]["psnr"]
        assert all(entry["gain"] is None for entry in entries)  # none over a perfect baseline
    assert scores["kohler"] == "inf"  # the input is one of the frames
    assert 15 < scores["kohler-x4"] < 40


def test_each_video_has_its_mean(tmp_path):
    root = tmp_path / "videodeblurring/quantitative_datasets"
    for number, video in enumerate((VIDEOS[0], VIDEOS[3])):
        for frame in range(2):
            sharp = picture(64, 80, 10 * number + frame)
            save(sharp, root / video / f"GT/0000{frame}.png")
            save((sharp + 0.02 * (1 + number)).clamp(0, 1), root / video / f"input/0000{frame}.png")
    mine = network("attentive-deblur", tmp_path)
    done = restore("--table", "xu-2021/3", "--data-root", tmp_path, "-o", tmp_path / "out",
                   "--model", mine, "-d", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    found = report(tmp_path)
    untouched = found["entries"][-1]
    assert list(untouched["groups"]) == [VIDEOS[0], VIDEOS[3]]
    mean = math.fsum(untouched["groups"].values()) / 2
    assert untouched["psnr"] == pytest.approx(mean)
    assert untouched["groups"][VIDEOS[0]] > untouched["groups"][VIDEOS[3]] + 3
    text = (tmp_path / "out/report.md").read_text()
    assert f"| PSNR of | {VIDEOS[0]} | {VIDEOS[3]} |" in text
    assert "| Input | 24.14 | 27.31 |" in text
    lines = [r for r in found["published"] if r["method"] == "this paper +"]
    assert "weights: trained on videodeblurring there" in lines[0]["what_differs"]
