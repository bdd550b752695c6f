"""The training script as users start it: both stages, several processes, resuming, overfitting, early errors."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from motion_depth.checkpoints.checkpoint import read_checkpoint
from tests.support.inprocess import train
from tests.support.runs import SCRIPT, SMALL, SMALL_STAGE_2, must_run, rows, run_python, weights


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


@pytest.mark.parametrize("stage", [1, 2])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(data_flags, stage1, stage2, stage, tmp_path):
    whole, step = (stage1, 4) if stage == 1 else (stage2, 2)
    output = tmp_path / "resumed"
    output.mkdir()
    subprocess.run(["cp", "-r", whole / f"step-{step}", whole / "log.jsonl", output], check=True)
    flags = SMALL if stage == 1 else [*SMALL_STAGE_2, "--lora_rank", 4, "--heads_checkpoint", stage1 / "final"]
    steps = 6 if stage == 1 else 4
    must_run(SCRIPT, "--stage", stage, *data_flags, *flags, "--output_path", output, "--max_steps", steps,
             "--save_steps", 3, "--resume", "auto")  # fmt: skip
    ours, theirs = weights(output / "final"), weights(whole / "final")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [row["step"] for row in rows(output)] == [row["step"] for row in rows(whole)]


def test_two_processes_keep_identical_weights_and_share_the_clips(data_flags, tmp_path):
    """Through torchrun with gloo; each rank dumps a digest of its weights when it ends."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import hashlib, os, sys, runpy, torch\n"
        "import motion_depth.training.loader as loader, accelerate\n"
        "seen = []\n"
        "real = loader.make_batch\n"
        "loader.make_batch = lambda samples, *rest: seen.extend(s.position for s in samples) or real(samples, *rest)\n"
        "models = []\n"
        "prepare = accelerate.Accelerator.prepare_model\n"
        "accelerate.Accelerator.prepare_model = lambda self, m, **k: models.append(m) or prepare(self, m, **k)\n"
        "end = accelerate.Accelerator.end_training\n"
        "def finish(self):\n"
        "    data = b''.join(p.detach().numpy().tobytes() for p in models[0].parameters() if p.requires_grad)\n"
        "    out = os.path.join(sys.argv[sys.argv.index('--output_path') + 1], f'rank{self.process_index}.txt')\n"
        "    open(out, 'w').write(f'{self.num_processes} {hashlib.sha256(data).hexdigest()} {sorted(seen)}')\n"
        "    end(self)\n"
        "accelerate.Accelerator.end_training = finish\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    output = tmp_path / "out"
    settings = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "offline",
    }
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(probe),
         "--stage", "1", *map(str, [*data_flags, *SMALL]), "--output_path", str(output), "--max_steps", "4",
         "--save_steps", "3"],
        capture_output=True, text=True, env={**os.environ, **settings, "PYTHONPATH": str(SCRIPT.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (output / f"rank{rank}.txt" for rank in (0, 1))
    (processes, digest, seen), (_, other_digest, other_seen) = (p.read_text().split(" ", 2) for p in (first, second))
    assert processes == "2"
    assert digest == other_digest
    assert sorted(json.loads(seen) + json.loads(other_seen)) == list(range(8))
    state = load_file(output / "step-4/training_state.safetensors")
    assert {name.split("/")[0] for name in state} == {"optimizer"}
    assert read_checkpoint(output / "step-4").config["training"]["clips"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--height", 100], "--height"),
        (["--num_frames", 6], "--num_frames"),
        (["--model_base_path", "nowhere"], "nowhere: no such folder"),
        (["--dataset_base_path", "nowhere"], "--dataset_base_path nowhere"),
        (["--dataset_metadata_path", "no.csv"], "no.csv"),
        (["--heads_checkpoint", "nowhere"], "nowhere: no such checkpoint folder"),
        (["--head_taps", "0.5,0.51"], "--head_taps"),
        (["--noise_mixture", "1,2"], "--noise_mixture"),
        (["--batch_size", 0], "--batch_size"),
        (["--learning_rate", -1], "--learning_rate"),
        (["--stage", 2], "--heads_checkpoint: stage 2"),
        (["--model_paths", "[]"], "give one of --model_base_path"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_configuration_errors_come_early_as_one_line(data_flags, tmp_path, changes, message):
    done = train("--stage", 1, *data_flags, *SMALL, "--output_path", tmp_path / "out", *changes)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_lora_targets_are_checked_before_a_model_loads(data_flags, stage1, tmp_path):
    done = run_python(SCRIPT, "--stage", 2, *data_flags, *SMALL_STAGE_2, "--heads_checkpoint", stage1 / "final",
                      "--output_path", tmp_path / "out", "--lora_target_modules", "q,xyz")  # fmt: skip
    assert done.returncode == 2
    assert "--lora_target_modules xyz: no linear layer of the DiT ends in that name" in done.stderr
    assert done.stdout == ""


def test_results_are_not_overwritten_and_other_settings_do_not_resume(data_flags, stage1):
    before = weights(stage1 / "final")
    again = train("--stage", 1, *data_flags, *SMALL, "--output_path", stage1, "--max_steps", 6)
    assert again.code == 2
    assert "already holds final" in again.err
    other = train("--stage", 1, *data_flags, *SMALL, "--output_path", stage1, "--resume", "auto",
                  "--learning_rate", 5, "--seed", 3)  # fmt: skip
    assert other.code == 2
    assert "--learning_rate was 0.0001, is 5.0" in other.err
    assert "--seed was 0, is 3" in other.err
    assert all(torch.equal(value, before[name]) for name, value in weights(stage1 / "final").items())


def test_a_broken_file_stops_training_with_its_name(data_flags, demo_scenes, demo_csv, tmp_path):
    """Found by a worker while training runs: one line, no wall of traceback."""
    broken = tmp_path / "scenes"
    subprocess.run(["cp", "-r", demo_scenes, broken], check=True)
    victim = sorted(broken.rglob("distance_to_camera/*.npy"))[4]
    victim.write_bytes(victim.read_bytes()[:200])
    flags = [broken if flag == demo_scenes else flag for flag in data_flags]
    output = tmp_path / "out"
    done = run_python(SCRIPT, "--stage", 1, *flags, *SMALL, "--output_path", output, "--dataset_num_workers", 1,
                      "--max_steps", 50)  # fmt: skip
    assert done.returncode == 2
    assert victim.name in done.stderr
    assert "Traceback" not in done.stderr
