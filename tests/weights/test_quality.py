"""The scores of the manifest come out of the commands that it names."""

from __future__ import annotations

import json
import shlex

import pytest
from conftest import ROOT, restore

from restore_cli.weights.manifest import load_manifest

pytestmark = pytest.mark.slow

SCORES = {
    name: [score for score in checkpoint.scores if "examples/sharp" in score.command]
    for name, checkpoint in load_manifest().checkpoints.items()
}


@pytest.mark.parametrize("name", sorted(SCORES))
def test_the_listed_scores_are_measured_again(tmp_path, name):
    assert len(SCORES[name]) == 1
    listed = SCORES[name][0]
    command = listed.command.replace("examples/sharp", str(ROOT / "examples/sharp"))
    done = restore(*shlex.split(command)[1:], "-o", tmp_path / "out", "--json", "-d", "cpu")
    assert done.exit_code == 0, done.stderr
    entry, bicubic = json.loads(done.stdout)["entries"]
    # Processors and libraries differ by less.
    assert entry["psnr"] == pytest.approx(listed.psnr, abs=0.02)
    assert entry["ssim"] == pytest.approx(listed.ssim, abs=0.001)
    assert entry["worst"][1] == pytest.approx(listed.worst_gain, abs=0.03)
    assert bicubic["psnr"] == pytest.approx(listed.bicubic_psnr, abs=0.002)
