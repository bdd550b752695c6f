"""The training script as users start it: what each stage writes."""

import torch
from safetensors.torch import load_file

from motion_depth.checkpoints.checkpoint import read_checkpoint
from tests.support.runs import rows, weights


def test_stage_1_writes_what_it_promises(stage1):
    assert sorted(path.name for path in stage1.iterdir() if path.is_dir()) == ["final", "step-4", "step-6", "wandb"]
    assert {path.name for path in (stage1 / "final").iterdir()} == {
        "motion_head.safetensors", "depth_head.safetensors", "statistics.safetensors", "config.json", "manifest.json"
    }  # fmt: skip
    config = read_checkpoint(stage1 / "final").config
    assert config["heads"]["taps"] == [2, 4, 6, 7]
    assert config["run"]["num_frames"] == 5
    assert config["versions"]["diffsynth"] == "2.1.12"
    assert [row["step"] for row in rows(stage1)] == [2, 4, 6]
    for name in ("loss", "motion_loss", "depth_loss", "lr", "grad_norm", "clips_per_s", "data_wait"):
        assert all(row[name] >= 0 for row in rows(stage1))
    assert any(name.startswith("depth_loss/sigma_") for name in rows(stage1)[0])
    before, after = weights(stage1 / "step-4"), weights(stage1 / "final")
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 0.9 * len(before)


def test_stage_2_starts_from_stage_1_and_trains_lora(stage1, stage2):
    names = {path.name for path in (stage2 / "final").iterdir()}
    assert {"lora.safetensors", "motion_head.safetensors", "depth_head.safetensors"} <= names
    config = read_checkpoint(stage2 / "final").config
    assert config["lora"]["rank"] == 4
    assert config["heads"] == read_checkpoint(stage1 / "final").config["heads"]
    lora = load_file(stage2 / "final/lora.safetensors")
    assert all(value.dtype == torch.float32 for value in lora.values())
    assert all(value.any() for value in lora.values())
    assert all(row["flow_loss"] > 0 for row in rows(stage2))
