"""Recipes: whole, strict, faithful; their schedules and schemas."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import tomllib
from fnmatch import fnmatchcase
from itertools import pairwise

import jsonschema
import pytest
import torch
from conftest import ROOT, miniature, slow
from training_runs import PHASE, RECIPE, inline, make_recipe, write_toml

from restore_cli.degradations.recipe import load_degradation
from restore_cli.errors import RecipeError, UsageError
from restore_cli.inference.tiling import pad
from restore_cli.training.data import Batch, Photos
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.recipe import (
    FOLDER,
    Ablation,
    Phase,
    ablations,
    learning_rate,
    load_recipe,
    shipped_recipes,
)
from restore_cli.training.trainer import Trainer, model_and_config

SYSTEMS = ("mprnet-mscam", "gfn", "moadg", "msan", "attentive-deblur")


@pytest.mark.parametrize(
    "name", [n if "lite" in n else slow(n) for n in (*shipped_recipes(), *ablations())]
)
def test_shipped_recipes_fit_their_networks(name):
    recipe = load_recipe(name)
    load_degradation(recipe.degradation)
    for part in recipe.mixture:
        load_degradation(part.degradation or recipe.degradation)
    if recipe.model is None:
        return
    model, config = model_and_config(recipe)
    with torch.device("meta"):
        network = model.build(config)
    parameters = dict(network.named_parameters())
    for phase in recipe.phases:
        wanted = {term.output for term in phase.losses}
        image = torch.empty(1, 3, phase.patch, phase.patch, device="meta")
        padded = pad(image, model.size)
        given = (image, wanted)
        if (
            padded.shape != image.shape
        ):  # what its frozen part makes is cut out of an item of a pool
            maps = network.prepare(padded)
            sides = {n: m.shape[-1] * phase.patch // padded.shape[-1] for n, m in maps.items()}
            given += ({n: m[..., : sides[n], : sides[n]] for n, m in maps.items()},)
        outputs = network.outputs(*given)
        assert outputs.keys() == wanted
        for term in phase.losses:
            shrink = {"reference_half": 2, "reference_quarter": 4}.get(term.target, 1)
            side = phase.patch
            if term.target in {"reference", "degraded_large"}:
                side *= model.scale
            assert outputs[term.output].shape[-1] == side // shrink, term
            assert term.target in Photos.targets
        for pattern in phase.trained:
            assert any(fnmatchcase(parameter, pattern) for parameter in parameters), pattern


def test_headers_name_schema_source_and_command():
    for name in shipped_recipes():
        head = (FOLDER / f"{name}.toml").read_text().split("\n\n")[0]
        assert head.startswith("#:schema ./schema.json\n")
        assert "# source: " in head
        assert f"# command: restore train {name} " in head


def test_every_system_has_both_sizes():
    for system in SYSTEMS:
        assert load_recipe(system).config == "paper"
        assert load_recipe(f"{system}-lite").config == "lite"


def test_published_losses():
    """systems.md: weights, targets, frozen parts."""

    def terms(name, phase):
        losses = load_recipe(name).phases[phase].losses
        return {(t.output, t.target, t.loss): t.weight for t in losses}

    stages = {
        (f"stage{n}", "reference_small", loss): weight
        for n in (1, 2, 3)
        for loss, weight in (("charbonnier", 1.0), ("edge", 0.05))
    }
    assert terms("mprnet-mscam", 0) == stages
    sharp = {("restored", "reference", "l1"): 1.0, ("restored", "reference", "gradient"): 0.1}
    assert terms("mprnet-mscam", 1) == sharp
    halves = {key: weight / 2 for key, weight in stages.items() if key[0] != "stage3"}
    assert terms("mprnet-mscam", 2) == sharp | halves
    frozen = load_recipe("mprnet-mscam").phases[1].trained
    assert not any(fnmatchcase("activation.weight", pattern) for pattern in frozen)
    assert [len(phase.losses) for phase in load_recipe("gfn").phases] == [2, 2, 1]
    assert [p.losses[0].output for p in load_recipe("gfn").phases] == [
        "ungated",
        "ungated",
        "restored",
    ]
    assert all(phase.keep_optimizer for phase in load_recipe("gfn").phases[1:])
    assert [t.loss for t in load_recipe("msan").phases[0].losses] == ["cross_entropy"]
    assert terms("attentive-deblur", 0)["restored", "reference", "gray_gradient"] == 2.5
    assert terms("moadg", 1)["restored", "reference", "ssim"] == 0.84


def test_ablations_change_what_they_say():
    """One part each; everything else is the base's."""

    def terms(name):
        return [[term.name for term in phase.losses] for phase in load_recipe(name).phases]

    assert terms("msan-mse") == terms("msan-no-attention-mse") == [["restored.mse"]]
    assert terms("attentive-deblur-mse-single") == [["restored.mse"]]
    assert terms("gfn-no-gate-no-deblurring-loss") == [["ungated.mse"], ["restored.mse"]]
    one = load_recipe("gfn-one-step")
    assert [phase.losses for phase in one.phases] == [load_recipe("gfn-two-steps").phases[1].losses]
    assert one.phases[0].learning_rate == 1e-4
    assert not one.phases[0].keep_optimizer
    assert [p.name for p in load_recipe("mprnet-mscam-120-jointly").phases] == ["joint"]
    for name, ablation in ablations().items():
        changed, base = (load_recipe(n).content() for n in (name, ablation.base))
        different = {key for key in base if changed[key] != base[key]}
        assert different <= {"config", "description", "phases"}
        assert changed != base
    with pytest.raises(RecipeError, match=r"'msan' has no phase or loss named restored\.l1"):
        Ablation(base="msan", without=["restored.l1"]).recipe()
    with pytest.raises(UsageError, match="Did you mean 'msan-mse'"):
        load_recipe("msan-ms")


@pytest.mark.parametrize("name", ablations())
def test_ablations_train_a_step(name):
    """Every phase of each, on a tiny network with the same change: what it trains moves."""
    recipe = load_recipe(name)
    model, config = model_and_config(recipe)
    phases = [phase.model_copy(update={"patch": 16, "batch": 2}) for phase in recipe.phases]
    config = dataclasses.asdict(miniature(model, config))
    recipe = recipe.model_copy(update={"config": config, "phases": phases})
    trainer = Trainer(recipe, ProcessGroup(torch.device("cpu")))
    side = 16 * model.scale
    targets = {"reference": side, "degraded_large": side, "reference_small": 16}
    targets |= {"reference_half": 8, "reference_quarter": 4}
    for number, phase in enumerate(phases):
        if number:
            trainer.next_phase(FOLDER / "none")
        images = {key: torch.rand(2, 3, n, n) for key, n in targets.items()}
        before = {key: p.clone() for key, p in trainer.network.named_parameters()}
        terms = trainer.train_step([Batch(torch.rand(2, 3, 16, 16), images)])
        assert terms.keys() == {term.name for term in phase.losses}
        moved = {
            key for key, p in trainer.network.named_parameters() if not torch.equal(p, before[key])
        }
        assert moved
        for key in moved:
            assert any(fnmatchcase(key, pattern) for pattern in phase.trained), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batchsize": 3}, "batchsize"),
        ({"phases": [PHASE | {"batch": 10**12}]}, "batch"),
        ({"seed": -1}, "seed"),
        ({"phases": []}, "phases"),
        ({"phases": [PHASE | {"patch": 8}]}, "patch"),
        ({"phases": [PHASE, PHASE]}, "two phases have the same name"),
        (
            {"phases": [PHASE | {"losses": PHASE["losses"][:1] * 2}]},
            "two losses have the same output",
        ),
        ({"phases": [PHASE | {"keep_optimizer": True}]}, "keep_optimizer"),
        (
            {
                "phases": [
                    PHASE | {"keep_optimizer": True, "begin": "last", "rate_scales": {"up": 2}}
                ]
            },
            "keep_optimizer also keeps",
        ),
        ({"phases": [PHASE | {"schedule": {"kind": "linear"}}]}, "schedule"),
        ({"seed": 2**63}, "seed"),
        ({"config": None}, "model and config must be given together"),
    ],
)
def test_broken_recipes_are_refused(tmp_path, change, message):
    values = {key: value for key, value in (RECIPE | change).items() if value is not None}
    text = "\n".join(f"{key} = {inline(value)}" for key, value in values.items())
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(tmp_path / "a.toml"))


@pytest.mark.parametrize("text", [f"a = {'[' * 10_000}", f"a = {'1' * 5_000}", "a = b"])
def test_what_is_no_toml(tmp_path, text):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"a.toml is not TOML"):
        load_recipe(str(tmp_path / "a.toml"))


def test_a_recipe_survives_its_toml(tmp_path):
    recipe = make_recipe({"progressive": [{"step": 3, "patch": 32, "batch": 1}]})
    assert load_recipe(str(write_toml(tmp_path / "a.toml", recipe))) == recipe
    with pytest.raises(UsageError, match="Did you mean 'gfn-lite'"):
        load_recipe("gfn-lit")


@pytest.mark.slow
def test_schemas_are_generated_and_hold():
    spec = importlib.util.spec_from_file_location("schemas", ROOT / "tools/schemas.py")
    schemas = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schemas)
    for path, kind in schemas.RECIPES.items():
        assert path.read_text() == schemas.schema(kind), "run python tools/schemas.py"
        schema = json.loads(path.read_text())
        for recipe in path.parent.glob("*.toml"):
            assert recipe.read_text().startswith(f"#:schema ./{path.name}\n")
            jsonschema.validate(tomllib.loads(recipe.read_text()), schema)
            broken = tomllib.loads(recipe.read_text()) | {"unknown": 1}
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(broken, schema)


def phase(**changes):
    return Phase.model_validate(PHASE | {"steps": 100, "warm_up": 0} | changes)


def rates(**changes):
    one = phase(**changes)
    return [learning_rate(one, step) for step in range(one.steps + 1)]


def test_cosine():
    schedule = {"kind": "cosine", "end": 1e-6, "steps": 40}
    ours = rates(warm_up=10, schedule=schedule)
    assert ours[0] == pytest.approx(2e-4)
    assert ours[10] == ours[60] == 2e-3
    assert ours[100] == pytest.approx(1e-6)
    assert all(a >= b for a, b in pairwise(ours[60:]))
    # The constant part does not know the end.
    assert rates(warm_up=10, schedule=schedule, steps=200)[:60] == ours[:60]
    whole = rates(schedule={"kind": "cosine"})
    assert whole[50] == pytest.approx(1e-3)


def test_step_polynomial_and_constant():
    steps_ = rates(schedule={"kind": "step", "every": 30, "factor": 0.5, "end": 4e-4})
    assert [steps_[n] for n in (0, 29, 30, 60, 99)] == [2e-3, 2e-3, 1e-3, 5e-4, 4e-4]
    power = rates(schedule={"kind": "polynomial", "power": 0.3})
    assert power[50] == pytest.approx(2e-3 * 0.5**0.3)
    assert power[100] == 0
    assert set(rates(schedule={"kind": "constant"})) == {2e-3}


def test_progressive_sizes():
    one = phase(progressive=[{"step": 10, "patch": 32, "batch": 1}])
    assert [one.sizes(step) for step in (0, 9, 10, 99)] == [(16, 2), (16, 2), (32, 1), (32, 1)]
    assert one.patches == {16, 32}
