"""Short ways to ask for things in tests."""

from __future__ import annotations

import dataclasses

import torch

from restore_cli.image import Encoding
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.plan import plan
from restore_cli.jobs.request import Destination, Processing, RestoreRequest, Selection

CPU = RestorerOptions(torch.device("cpu"))


def request(*inputs, **options) -> RestoreRequest:
    """A request of inputs; every option goes to the part that has it."""
    parts = []
    for kind in (Selection, Destination, Processing, Encoding):
        names = {field.name for field in dataclasses.fields(kind)} & set(options)
        own = {name: options.pop(name) for name in names}
        parts.append(kind(tuple(inputs), **own) if kind is Selection else kind(**own))
    assert not options
    return RestoreRequest(*parts)


def spec(model="gfn", weights=None, scale=None) -> PipelineSpec:
    return PipelineSpec.parse(model, weights and str(weights), scale, CPU)


def planned(*inputs, scale=4, **options):
    return plan(request(*inputs, **options), spec(scale=scale))
