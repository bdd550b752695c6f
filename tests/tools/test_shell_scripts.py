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
    expected = {
        "stage": "1",
        "dataset_metadata_path": str(ROOT / "data/sim_physics_metadata.csv"),
        "dataset_repeat": "100",
        "height": "480",
        "width": "480",
        "num_frames": "49",
        "frame_stride": "auto",
        "learning_rate": "1e-4",
        "num_epochs": "10",
        "batch_size": "1",
        "gradient_accumulation_steps": "8",
        "save_steps": "500",
        "motion_loss_weight": "1.0",
        "depth_loss_weight": "1.0",
        "output_path": "./outputs/stage1",
        "report_to": "wandb",
    }
    assert {name: flags[name] for name in expected} == expected
    assert "val_metadata_path" not in flags


@pytest.mark.parametrize("number", [1, 2])
def test_the_training_script_knows_every_flag(stage, number):
    command = command_of(stage(number, "--max_steps", "7", MAX_STEPS=3))
    settings = training.parse_settings(command[1:])
    assert settings.stage == number
    assert settings.optim.max_steps == 7  # what is added at the end has the last word


SETTINGS = {
    "DATASET_BASE_PATH": "my data",
    "DATASET_METADATA_PATH": "a.csv",
    "VAL_METADATA_PATH": "b.csv",
    "DATASET_REPEAT": "3",
    "DATASET_NUM_WORKERS": "2",
    "OUTPUT_PATH": "out",
    "HEIGHT": "256",
    "WIDTH": "320",
    "NUM_FRAMES": "81",
    "FRAME_STRIDE": "1",
    "MOTION_UNITS": "ndc",
    "MOTION_DIRECTION": "forward",
    "MOTION_Y_AXIS": "up",
    "MOTION_FRAME_OFFSET": "-1",
    "LEARNING_RATE": "2e-5",
    "NUM_EPOCHS": "4",
    "MAX_STEPS": "11",
    "BATCH_SIZE": "2",
    "GRADIENT_ACCUMULATION_STEPS": "5",
    "SAVE_STEPS": "50",
    "MOTION_LOSS_WEIGHT": "0.5",
    "DEPTH_LOSS_WEIGHT": "0.25",
    "NOISE_MIXTURE": "1,0,0",
    "SEED": "6",
    "RESUME": "auto",
    "WANDB_PROJECT": "other",
    "REPORT_TO": "tensorboard",
    "MIXED_PRECISION": "bf16",
}
STAGE_SETTINGS = {
    1: {"HEAD": "linear", "HEAD_SIZE": "small"},
    2: {"LORA_RANK": "8", "LORA_LEARNING_RATE": "3e-4", "LORA_TARGET_MODULES": "q,v", "FLOW_LOSS_WEIGHT": "0.1"},
}


@pytest.mark.parametrize("number", [1, 2])
def test_every_setting_comes_from_the_environment(stage, number):
    settings = {**SETTINGS, **STAGE_SETTINGS[number]}
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
    assert command_of(stage(1, "--max_steps", "10", "--x", "two words"))[-4:] == [
        "--max_steps",
        "10",
        "--x",
        "two words",
    ]


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
    for word in (
        "Stage 1",
        "./data/Sim_Physics",
        "81 frames of 480x480",
        "results/a",
        "bin",
        "1 x CPU",
        "--max_steps 10",
    ):
        assert word in plan


def test_a_cpu_gets_one_process_in_full_precision(stage):
    done = stage(1)
    launcher, flags = launcher_and_flags(command_of(done))
    assert launcher == []
    assert flags["mixed_precision"] == "no"
    assert "use_cpu=true" in done.stdout


def test_several_cpu_processes_go_through_torchrun(stage):
    done = stage(2, NUM_PROCESSES=2, OMP_NUM_THREADS=3)
    launcher, _ = launcher_and_flags(command_of(done))
    assert launcher == ["-m", TORCHRUN, "--nproc_per_node", "2", "--standalone"]
    assert "use_cpu=true" in done.stdout
    assert "threads=3" in done.stdout


@pytest.mark.parametrize(("gpus", "asked", "processes"), [(1, {}, 1), (4, {}, 4), (4, {"NUM_PROCESSES": 2}, 2)])
def test_one_process_on_each_visible_gpu(stage, gpus, asked, processes):
    done = stage(1, FAKE_GPUS=gpus, **asked)
    launcher, flags = launcher_and_flags(command_of(done))
    assert flags["mixed_precision"] == "bf16"
    assert "use_cpu=\n" in done.stdout
    if processes == 1:
        assert launcher == []
    else:
        assert launcher[:2] == ["-m", ACCELERATE]
        assert as_dict(launcher)["num_processes"] == str(processes)
        assert as_dict(launcher)["multi_gpu"] is True


@pytest.mark.parametrize("gpus", [0, 2])
def test_an_accelerate_configuration_takes_the_place_of_ddp(stage, gpus):
    config = ROOT / "configs/fsdp.yaml"
    done = stage(2, FAKE_GPUS=gpus, NUM_PROCESSES=2, ACCELERATE_CONFIG=config)
    launcher, _ = launcher_and_flags(command_of(done))
    assert launcher[:2] == ["-m", ACCELERATE]
    flags = as_dict(launcher)
    assert (flags["config_file"], flags["num_processes"]) == (str(config), "2")
    assert "multi_gpu" not in flags
    assert ("use_cpu=true" in done.stdout) == (gpus == 0)


def test_several_machines_with_gpus(stage):
    several = {"NUM_MACHINES": 3, "MACHINE_RANK": 2, "MAIN_PROCESS_IP": "10.0.0.1", "MAIN_PROCESS_PORT": 1234}
    launcher, _ = launcher_and_flags(command_of(stage(1, FAKE_GPUS=8, **several)))
    assert launcher[:2] == ["-m", ACCELERATE]
    flags = as_dict(launcher)
    expected = {"num_processes": "24", "num_machines": "3", "machine_rank": "2"}
    assert {name: flags[name] for name in expected} == expected
    assert (flags["main_process_ip"], flags["main_process_port"]) == ("10.0.0.1", "1234")


def test_several_machines_without_gpus(stage):
    several = {"NUM_MACHINES": 2, "MACHINE_RANK": 1, "MAIN_PROCESS_IP": "10.0.0.1"}
    launcher, _ = launcher_and_flags(command_of(stage(1, **several)))
    assert launcher[:2] == ["-m", TORCHRUN]
    flags = as_dict(launcher)
    assert (flags["nnodes"], flags["node_rank"], flags["nproc_per_node"]) == ("2", "1", "1")
    assert (flags["master_addr"], flags["master_port"]) == ("10.0.0.1", "29500")


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
