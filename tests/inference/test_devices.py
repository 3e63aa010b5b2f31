"""Precisions: which one is automatic, and what bf16 on a CPU changes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from conftest import picture

from restore_cli.errors import UsageError
from restore_cli.inference import devices
from restore_cli.inference.devices import cpu_bf16_ratio, get_precision, get_training_precision
from restore_cli.inference.loading import load_network
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.metrics import psnr
from restore_cli.models.registry import MODELS
from restore_cli.weights.store import locate

CPU = torch.device("cpu")
AUTOMATIC = RestorerOptions(CPU, dtype=None)
GFN = MODELS["gfn"]


@pytest.fixture
def measured(monkeypatch):
    """Sets the measured ratio of this processor."""
    return lambda ratio: monkeypatch.setattr(devices, "cpu_bf16_ratio", lambda: ratio)


@pytest.mark.parametrize(("ratio", "dtype"), [(0.5, torch.bfloat16), (0.9, torch.float32)])
def test_bf16_is_chosen_where_it_is_faster(measured, ratio, dtype):
    measured(ratio)
    assert AUTOMATIC.with_dtype([GFN]).dtype == dtype
    assert get_training_precision("auto", CPU) == dtype
    pipeline = PipelineSpec.parse("gfn", None, 4, AUTOMATIC).load()
    assert pipeline.identity["precision"] == str(dtype).removeprefix("torch.")
    assert ("bf16" in pipeline.describe()[0]) == (dtype == torch.bfloat16)


def test_bf16_is_chosen_only_if_every_network_of_a_pipeline_supports_it(measured):
    measured(0.5)
    exact = dataclasses.replace(GFN, dtypes=(torch.float32,))
    assert AUTOMATIC.with_dtype([GFN, exact]).dtype == torch.float32
    assert AUTOMATIC.with_dtype([]).dtype == torch.float32  # only bicubic
    assert PipelineSpec.parse("bicubic", None, 4, AUTOMATIC).load().options.dtype == torch.float32


def test_the_precision_is_that_of_the_device_that_restores(measured):
    """A pipeline for processes on GPUs is loaded on the CPU, to describe it."""
    measured(0.5)
    options = dataclasses.replace(AUTOMATIC, device=torch.device("meta"))
    described = PipelineSpec.parse("gfn", None, 4, options).load(CPU)
    assert (described.options.device, described.options.dtype) == (CPU, torch.float32)


def test_a_given_precision_is_kept(measured):
    measured(0.5)
    assert RestorerOptions(CPU).with_dtype([GFN]).dtype == torch.float32
    measured(2.0)
    assert get_precision("bf16", CPU) == torch.bfloat16
    assert get_precision("auto", CPU) is None
    assert get_precision("auto", None) == torch.float32  # another machine, which is not measured
    with pytest.raises(UsageError, match="GPUs only"):
        get_precision("fp16", CPU)


@pytest.mark.parametrize("has", [{}, {"avx2": True}, {"avx512_bf16": True}, {"amx_bf16": True}])
def test_only_processors_with_the_instructions_are_measured(monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    ratio = cpu_bf16_ratio.__wrapped__()
    assert ratio > 0
    assert math.isinf(ratio) != any("bf16" in name for name in has)


@pytest.mark.parametrize(("name", "decibels"), [("msan", 75), ("gfn", 54)])
def test_bf16_on_a_cpu_changes_little_and_not_the_picture_that_is_added(name, decibels):
    loaded, image = load_network(locate(None, name)), picture(48, 64)
    exact = Restorer(loaded, RestorerOptions(CPU))(image)
    half = Restorer(loaded, RestorerOptions(CPU, dtype=torch.bfloat16))(image)
    assert decibels < float(psnr(half, exact)) < math.inf
    assert all(p.dtype == torch.float32 for p in loaded.network.parameters())
