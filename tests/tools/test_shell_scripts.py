"""The stage scripts: which command they start, with which settings, and what they refuse.

A stand-in for Python answers the scripts' questions (how many GPUs) and prints the command that it was given.
"""

import re
import shlex

import pytest

import train_wan22_ti2v_motion_depth as training
from tests.support.runs import ROOT
from tests.support.shells import as_dict, command_of, launcher_and_flags, write_script

ACCELERATE, TORCHRUN = "accelerate.commands.launch", "torch.distributed.run"


def test_stage1_defaults_are_the_reference_job(stage):
    launcher, flags = launcher_and_flags(command_of(stage(1)))
    assert launcher == []
    reference = f"""
        --stage 1 --dataset_metadata_path {ROOT}/data/sim_physics_metadata.csv --dataset_repeat 100
        --height 480 --width 480 --num_frames 49 --frame_stride auto
        --learning_rate 1e-4 --num_epochs 10 --batch_size 1 --gradient_accumulation_steps 8 --save_steps 500
        --motion_loss_weight 1.0 --depth_loss_weight 1.0 --output_path ./outputs/stage1 --report_to wandb"""
    assert as_dict(reference.split()).items() <= flags.items()
    assert "val_metadata_path" not in flags


@pytest.mark.parametrize("number", [1, 2])
def test_the_training_script_knows_every_flag(stage, number):
    command = command_of(stage(number, "--max_steps", "7", MAX_STEPS=3))
    settings = training.parse_settings(command[1:])
    assert settings.stage == number
    assert settings.optim.max_steps == 7  # what is added at the end has the last word


SETTINGS = """
DATASET_BASE_PATH DATASET_METADATA_PATH VAL_METADATA_PATH VAL_STEPS CACHE_PATH DATASET_REPEAT DATASET_NUM_WORKERS
HEIGHT WIDTH NUM_FRAMES FRAME_STRIDE MOTION_UNITS MOTION_DIRECTION MOTION_Y_AXIS MOTION_FRAME_OFFSET
LEARNING_RATE LR_SCHEDULER LR_WARMUP_STEPS WEIGHT_DECAY MAX_GRAD_NORM NUM_EPOCHS MAX_STEPS BATCH_SIZE
GRADIENT_ACCUMULATION_STEPS MOTION_LOSS_WEIGHT DEPTH_LOSS_WEIGHT LOSS_FRAMES NOISE_MIXTURE SEED
OUTPUT_PATH SAVE_STEPS KEEP_LAST RESUME REPORT_TO WANDB_PROJECT MIXED_PRECISION"""
OF_A_STAGE = {
    1: " HEAD HEAD_SIZE",
    2: " LORA_RANK LORA_LEARNING_RATE LORA_TARGET_MODULES FLOW_LOSS_WEIGHT GRADIENT_CHECKPOINTING",
}


@pytest.mark.parametrize("number", [1, 2])
def test_every_setting_comes_from_the_environment(stage, number):
    settings = {name: f"my {name}" for name in (SETTINGS + OF_A_STAGE[number]).split()}
    _, flags = launcher_and_flags(command_of(stage(number, **settings)))
    assert {name: flags.get(name.lower()) for name in settings} == settings


def test_wandb_can_be_switched_off(stage):
    assert launcher_and_flags(command_of(stage(1, USE_WANDB=0)))[1]["report_to"] == "none"
    both = stage(2, USE_WANDB=0, REPORT_TO="wandb,tensorboard")
    assert launcher_and_flags(command_of(both))[1]["report_to"] == "none,tensorboard"


def test_compiling_is_switched_on_by_a_setting(stage):
    assert "compile" not in launcher_and_flags(command_of(stage(1)))[1]
    assert launcher_and_flags(command_of(stage(2, COMPILE=1)))[1]["compile"] is True


def test_further_flags_are_passed_on_word_by_word(stage):
    assert command_of(stage(1, "--max_steps", "10", "--x", "two words"))[-3:] == ["10", "--x", "two words"]


@pytest.mark.parametrize("status", [0, 2, 75])
def test_the_exit_status_is_the_training_scripts(stage, status):
    assert stage(1, FAKE_STATUS=status).returncode == status


def test_a_dry_run_prints_the_command_and_runs_nothing(stage):
    done = stage(1, "--x", "two words", DRY_RUN=1, FAKE_STATUS=9)
    assert done.returncode == 0
    assert "COMMAND" not in done.stdout
    assert shlex.split(done.stdout.splitlines()[-1])[-2:] == ["--x", "two words"]


def test_it_says_what_will_run(stage):
    done = stage(1, "--max_steps", "10", NUM_FRAMES=81, OUTPUT_PATH="results/a", MODEL_BASE_PATH="bin", DRY_RUN=1)
    plan = done.stdout.rsplit("\n", 2)[0]
    said = ("Stage 1", "./data/Sim_Physics", "81 frames of 480x480", "results/a", "bin", "1 x CPU", "--max_steps 10")
    assert [word for word in said if word not in plan] == []


FSDP = ROOT / "configs/fsdp.yaml"
SEVERAL = {"NUM_MACHINES": 3, "MACHINE_RANK": 2, "MAIN_PROCESS_IP": "10.0.0.1"}


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, ""),
        ({"FAKE_GPUS": 1}, ""),
        # On CPUs accelerate would start a single one.
        ({"NUM_PROCESSES": 2}, f"-m {TORCHRUN} --nproc_per_node 2 --standalone"),
        (SEVERAL, f"-m {TORCHRUN} --nproc_per_node 1 --nnodes 3 --node_rank 2 --master_addr 10.0.0.1 "
         "--master_port 29500"),
        ({"FAKE_GPUS": 4}, f"-m {ACCELERATE} --multi_gpu --num_processes 4 --main_process_port 0"),
        ({"FAKE_GPUS": 4, "NUM_PROCESSES": 2}, f"-m {ACCELERATE} --multi_gpu --num_processes 2"),
        ({"FAKE_GPUS": 8, "MAIN_PROCESS_PORT": 1234, **SEVERAL}, f"-m {ACCELERATE} --multi_gpu --num_processes 24 "
         "--num_machines 3 --machine_rank 2 --main_process_ip 10.0.0.1 --main_process_port 1234"),
        *(({"FAKE_GPUS": gpus, "NUM_PROCESSES": 2, "ACCELERATE_CONFIG": FSDP},
           f"-m {ACCELERATE} --config_file {FSDP} --num_processes 2") for gpus in (0, 2)),
    ],
)  # fmt: skip
def test_processes_are_started_by_what_fits_the_machine(stage, environment, launcher):
    gpus = environment.get("FAKE_GPUS", 0)
    done = stage(2, OMP_NUM_THREADS=3, **environment)
    found, flags = launcher_and_flags(command_of(done))
    assert found[:2] == launcher.split()[:2]
    assert as_dict(launcher.split()).items() <= as_dict(found).items()
    assert ("--multi_gpu" in found) == ("--multi_gpu" in launcher)
    assert flags["mixed_precision"] == ("bf16" if gpus else "no")
    assert f"use_cpu={'' if gpus else 'true'}\nthreads=3\n" in done.stdout


@pytest.mark.parametrize(
    ("number", "environment", "expected"),
    [
        (1, {"NUM_MACHINES": 2}, "NUM_MACHINES=2 needs MAIN_PROCESS_IP"),
        (1, {"MACHINE_RANK": 1}, "MACHINE_RANK=1 is not between 0 and NUM_MACHINES - 1 = 0"),
        (1, {"NUM_PROCESSES": "two"}, "NUM_PROCESSES=two is not a whole number above 0"),
        (1, {"NUM_MACHINES": 0}, "NUM_MACHINES=0 is not a whole number above 0"),
        (1, {"FAKE_GPUS": 2, "NUM_PROCESSES": 3}, "NUM_PROCESSES=3, but 2 GPUs are visible"),
        (1, {"FAKE_GPUS": 2, "ACCELERATE_CONFIG": "no.yaml"}, "ACCELERATE_CONFIG=no.yaml is not a file"),
        (1, {"FAKE_GPUS": 1, "ACCELERATE_CONFIG": ROOT / "configs/ddp.yaml"}, "is for several processes"),
        (1, {"MODEL_BASE_PATH": "weights"}, "MODEL_BASE_PATH=weights is not a folder"),
        (1, {"PYTHON": "no/python"}, "there is no Python at no/python; run 'bash tools/setup.sh'"),
        (2, {"STAGE1_PATH": "runs/a"}, "there is no runs/a/final, .* run 'bash train_wan22_stage1_heads.sh' first"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(stage, number, environment, expected):
    done = stage(number, **environment)
    assert done.returncode == 2
    assert "COMMAND" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(expected, line), line


def test_a_python_without_the_libraries_is_refused(stage, tmp_path):
    lacking = write_script(tmp_path / "lacking", "#!/bin/sh\nexit 1\n")
    done = stage(1, PYTHON=lacking)
    assert done.returncode == 2
    assert "lacks torch, diffsynth or accelerate; run 'bash tools/setup.sh'" in done.stderr
