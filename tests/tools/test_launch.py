"""Which Python, which GPUs, which weights and which heads the stage scripts take."""

import sys
from pathlib import Path

import pytest

from tests.support.shells import FAKE_PYTHON, command_of, launcher_and_flags, write_script

MODEL_ID = "Wan-AI/Wan2.2-TI2V-5B"

# Asks the real file for the devices.
PASS_ON = f"""#!/usr/bin/env bash
[[ "$*" != "-m motion_depth.processes.devices" ]] || exec {sys.executable} -S "$@"
"""
TOO_OLD = """
class cuda:
    device_count = lambda: 0 if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else 2
    is_available = lambda: False
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update.\\nMore")
class version:
    cuda = "13.0"
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_gpus_whose_driver_is_too_old_are_no_reason_to_train_on_the_cpu(stage, tmp_path, hidden):
    """The driver's library counts them, but CUDA does not start."""
    (tmp_path / "torch.py").write_text(f"import os\n__version__ = '2.14.0'\n{TOO_OLD}")
    python = write_script(tmp_path / "python", f"{PASS_ON}{FAKE_PYTHON.partition(chr(10))[2]}")
    visible = {"CUDA_VISIBLE_DEVICES": ""} if hidden else {}
    done = stage(1, PYTHON=python, PYTHONPATH=tmp_path, **visible)
    if hidden:
        assert "use_cpu=true" in done.stdout
        return
    assert done.returncode == 2
    assert "COMMAND" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: GPUs: found 2, but torch 2.14.0, which is built for CUDA 13.0, cannot start CUDA ")
    assert "(The NVIDIA driver on your system is too old (found version 11040)); update the" in line


def test_which_python_is_used(stage, tmp_path, fake_python):
    def marked(name: str) -> Path:
        write_script(tmp_path / name / "bin/python", FAKE_PYTHON.replace("COMMAND", f"COMMAND-{name}"))
        return tmp_path / name

    explicit, active = marked("explicit"), marked("active")
    assert "COMMAND-explicit" in stage(1, PYTHON="", VENV=explicit, VIRTUAL_ENV=active).stdout
    assert "COMMAND-active" in stage(1, PYTHON="", VIRTUAL_ENV=active).stdout
    assert "COMMAND\n" in stage(1, PYTHON=fake_python, VENV=explicit, VIRTUAL_ENV=active).stdout


def test_weights_come_from_the_default_folder_only_if_it_is_whole(stage, tmp_path):
    folder = tmp_path / "models" / MODEL_ID
    folder.mkdir(parents=True)
    for name in ("models_t5_umt5-xxl-enc-bf16.pth", "diffusion_pytorch_model-00001-of-00001.safetensors"):
        (folder / name).touch()
    _, flags = launcher_and_flags(command_of(stage(1)))
    assert "model_base_path" not in flags
    parts = str(flags["model_id_with_origin_paths"]).split(",")
    assert [part.split(":")[0] for part in parts] == [MODEL_ID] * 3

    (folder / "Wan2.2_VAE.pth").touch()
    (folder / "google/umt5-xxl").mkdir(parents=True)
    _, flags = launcher_and_flags(command_of(stage(1)))
    assert flags["model_base_path"] == f"./models/{MODEL_ID}"
    assert "model_id_with_origin_paths" not in flags


def test_stage2_starts_from_stage1s_heads(stage):
    _, flags = launcher_and_flags(command_of(stage(2)))
    assert flags["heads_checkpoint"] == "./outputs/stage1/final"
    assert "head" not in flags  # the checkpoint knows


@pytest.mark.parametrize("flag", [("--heads_checkpoint", "other"), ("--heads_checkpoint=other",)])
def test_stage2_takes_another_checkpoint(stage, flag):
    command = command_of(stage(2, *flag, STAGE1_PATH="missing"))
    assert sum(word.startswith("--heads_checkpoint") for word in command) == 1


def test_without_heads_or_from_nothing_stage_2_needs_no_stage_1(stage):
    off = {"MOTION_LOSS_WEIGHT": "0", "DEPTH_LOSS_WEIGHT": "0.0", "STAGE1_PATH": "missing"}
    for done in (
        stage(2, TUNE="full", EMA_DECAY="0.9", **off),
        stage(2, "--tune", "full", "--motion_loss_weight", "0", "--depth_loss_weight=0", STAGE1_PATH="missing"),
        stage(2, TUNE="full", STAGE1_PATH=""),
    ):
        flags = launcher_and_flags(command_of(done))[1]
        assert flags["tune"] == "full"
        assert "heads_checkpoint" not in flags
    refused = stage(2, TUNE="full", STAGE1_PATH="missing")
    assert refused.returncode == 2
    assert "there is no missing/final" in refused.stderr
