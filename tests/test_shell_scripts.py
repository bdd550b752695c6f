"""The shell scripts: which command a stage script starts, how setup.sh builds, what run.sh and demo.sh hand on.

A stand-in for Python answers the scripts' questions (how many GPUs) and prints the command that it was given.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import train_wan22_ti2v_motion_depth as training

ROOT = Path(__file__).resolve().parents[1]
STAGES = {1: ROOT / "train_wan22_stage1_heads.sh", 2: ROOT / "train_wan22_stage2_lora.sh"}
MODEL_ID = "Wan-AI/Wan2.2-TI2V-5B"
ACCELERATE, TORCHRUN = "accelerate.commands.launch", "torch.distributed.run"

FAKE_PYTHON = """#!/usr/bin/env bash
if [[ "$1" == -c ]]; then
    [[ "$2" != *device_count* ]] || echo "${FAKE_GPUS:-0}"
    exit 0
fi
printf '%s\\n' "use_cpu=${ACCELERATE_USE_CPU:-}" "threads=${OMP_NUM_THREADS:-}" COMMAND "$@"
exit "${FAKE_STATUS:-0}"
"""


def shell(script: Path, *flags: object, cwd: Path, **environment: object) -> subprocess.CompletedProcess:
    """Runs a script with bash and nothing in the environment but what a login shell has, and `environment`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return subprocess.run(
        ["bash", str(script), *map(str, flags)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**kept, **{name: str(value) for name, value in environment.items()}},
    )


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def fake_python(tmp_path) -> Path:
    return write_script(tmp_path / "bin" / "python", FAKE_PYTHON)


@pytest.fixture
def stage(tmp_path, fake_python):
    """Runs stage 1 or 2 in a folder where stage 1 has finished, with the stand-in for Python."""
    (tmp_path / "outputs/stage1/final").mkdir(parents=True)

    def run(number: int, *flags: object, **environment: object) -> subprocess.CompletedProcess:
        return shell(STAGES[number], *flags, cwd=tmp_path, **{"PYTHON": fake_python, **environment})

    return run


def command_of(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return lines[lines.index("COMMAND") + 1 :]


def launcher_and_flags(command: list[str]) -> tuple[list[str], dict[str, str | bool]]:
    """What stands before the training script, and its flags; a flag without a value is True."""
    at = command.index(str(ROOT / "train_wan22_ti2v_motion_depth.py"))
    return command[:at], as_dict(command[at + 1 :])


def as_dict(words: list[str]) -> dict[str, str | bool]:
    flags: dict[str, str | bool] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            flags[word.removeprefix("--")] = True if following.startswith("--") else following
    return flags


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
        "use_wandb": True,
    }
    assert {name: flags[name] for name in expected} == expected
    assert "val_metadata_path" not in flags


@pytest.mark.parametrize("number", [1, 2])
def test_the_training_script_knows_every_flag(stage, number):
    command = command_of(stage(number, "--max_steps", "7", MAX_STEPS=3))
    args = training.parse_args(command[1:])
    assert args.stage == number
    assert args.max_steps == 7  # what is added at the end has the last word


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
    _, flags = launcher_and_flags(command_of(stage(1, USE_WANDB=0)))
    assert not {"use_wandb", "wandb_project"} & set(flags)


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


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the scripts in a project without requirements, so that setting it up needs no network."""
    folder = tmp_path / "project"
    tools = [f"tools/{name}.sh" for name in ("setup", "demo", "demo_settings", "ablate", "scale")]
    for name in (*tools, "tests/run.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (folder / name).write_text("# none\n")
    return folder


def test_setup_builds_once_completes_and_follows_the_requirements(project, tmp_path):
    def setup() -> str:
        done = shell(project / "tools/setup.sh", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    stored = tmp_path / "elsewhere"
    stored.mkdir()
    (project / ".venv").symlink_to(stored)
    assert "Making the Python environment" in setup()
    assert (stored / "bin/python").exists()
    assert setup().splitlines() == [f"Python environment {project / '.venv'} is ready."]

    (project / "requirements.txt").write_text("# changed\n")
    assert "Installing" in setup()
    assert "Installing" not in setup()

    (stored / ".requirements.sha256").unlink()  # as if stopped while pip was put there
    (stored / ".unfinished").touch()
    shutil.rmtree(next(stored.glob("lib/python*/site-packages/pip")))
    assert "Making the Python environment" in setup()
    assert subprocess.run([stored / "bin/python", "-m", "pip", "--version"], capture_output=True).returncode == 0
    assert not (stored / ".unfinished").exists()


def no_venv(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv/mine.txt").touch()


@pytest.mark.parametrize(
    ("prepare", "environment", "expected"),
    [
        (no_venv, {}, "holds files but no Python environment"),
        (lambda project: (project / ".venv").touch(), {}, "is not a folder"),
        (lambda project: (project / ".venv").symlink_to("nowhere"), {}, "is a link to a folder that does not exist"),
        (None, {"PYTHON": "no-such-python"}, "PYTHON=no-such-python does not run"),
        (None, {"PYTHON": "./old"}, "PYTHON=./old is Python 3.9.1, but 3.10 or newer is needed"),
    ],
)
def test_setup_refuses_what_it_cannot_use(project, prepare, environment, expected):
    old = '#!/bin/sh\ncase "$2" in *platform*) echo 3.9.1;; *version_info*) exit 1;; esac\n'
    write_script(project / "old", old)
    if prepare is not None:
        prepare(project)
    done = shell(project / "tools/setup.sh", cwd=project, **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


def test_run_sh_passes_arguments_on_and_keeps_the_network_out(project, tmp_path):
    write_script(project / "tools/setup.sh", "echo setup")
    write_script(
        tmp_path / "env/bin/python", '#!/bin/sh\necho "$HF_HUB_OFFLINE $WANDB_MODE $PWD"\nprintf "%s\\n" "$@"\n'
    )
    (tmp_path / "test_x.py").touch()
    done = shell(project / "tests/run.sh", "test_x.py::test_y", "-k", "a or b", cwd=tmp_path, VENV="env")
    assert done.stdout.splitlines() == [
        "setup",
        f"1 offline {project}",
        *("-m", "pytest", "-q", f"{tmp_path}/test_x.py::test_y", "-k", "a or b"),
    ]


def test_the_demo_runs_both_stage_scripts_as_they_are(project, tmp_path):
    write_script(project / "tools/setup.sh", "")
    write_script(tmp_path / "env/bin/python", '#!/bin/sh\necho "python $(basename "$1") $*"\n')
    for script in STAGES.values():
        settings = "$OUTPUT_PATH $MAX_STEPS $DATASET_METADATA_PATH $MODEL_BASE_PATH $STAGE1_PATH"
        write_script(project / script.name, f'echo "{script.name} $# {settings}"')
    steps = {"STAGE1_STEPS": 5, "STAGE2_STEPS": 6}
    done = shell(project / "tools/demo.sh", cwd=tmp_path, VENV=tmp_path / "env", DEMO_DIR="d", **steps)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("python", "train"))]
    assert [line.split()[1] for line in lines if line.startswith("python")] == [
        *("make_demo_scenes.py", "make_metadata.py") * 2,
        "make_tiny_wan.py",
        "evaluate.py",
        "generate.py",
        "show_losses.py",
    ]
    assert [line for line in lines if line.startswith("train")] == [
        f"{STAGES[1].name} 0 d/stage1 5 d/train.csv d/tiny_wan d/stage1",
        f"{STAGES[2].name} 0 d/stage2 6 d/train.csv d/tiny_wan d/stage1",
    ]


def test_a_row_of_the_ablations_trains_with_the_given_flags_on_the_demos_scenes(project, tmp_path):
    numbers = {"abs_rel": 0.1, "abs_rel_baseline": 0.2, "moving_epe": 2.0, "moving_epe_baseline": 2.5, "epe": 0.3}
    overall = dict.fromkeys(("0.02", "0.5", "1.0"), numbers)
    metrics = write_script(tmp_path / "metrics.json", json.dumps({"overall": overall}))
    python = 'case "$1" in -) exec python3 "$@" ;; esac\necho "python $(basename "$1")"\n'
    copy = f'while [ "$1" != --output ]; do shift; done; mkdir -p "$2"; cp {metrics} "$2/"\n'
    write_script(tmp_path / "env/bin/python", f"#!/bin/sh\n{python}{copy}")
    write_script(project / STAGES[1].name, 'echo "stage 1: $* $OUTPUT_PATH $MAX_STEPS $BATCH_SIZE $MODEL_BASE_PATH"')
    (tmp_path / "d/tiny_wan").mkdir(parents=True)

    def row() -> list[str]:
        environment = {"VENV": tmp_path / "env", "DEMO_DIR": "d", "STEPS": 7}
        done = shell(project / "tools/ablate.sh", "linear", "--head", "linear", cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    trained, evaluated, _, first = row()
    assert trained == "stage 1: --head linear d/ablation/linear 7 16 d/tiny_wan"
    assert evaluated == "python evaluate.py"
    assert first == "| linear | 0.100 | 2.00 | 0.300 | 0.50, 0.50, 0.50 | 0.80, 0.80, 0.80 |"
    assert row()[-1] == first
    assert len(row()) == 2  # printed again, not trained again


@pytest.mark.parametrize(("arguments", "expected"), [((), "needs a name"), (("dense",), "run tools/demo.sh first")])
def test_ablations_say_what_is_missing(project, tmp_path, arguments, expected):
    done = shell(project / "tools/ablate.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


SCALED = """#!/usr/bin/env bash
echo "$* $NUM_PROCESSES $MAX_STEPS $OMP_NUM_THREADS"
mkdir -p "$OUTPUT_PATH"
for speed in 1 $((NUM_PROCESSES * 10)); do # the first half does not count
    echo "{\\"step\\": 1, \\"clips_per_s\\": $speed, \\"data_wait\\": 0.1}" >>"$OUTPUT_PATH/log.jsonl"
done
"""


def test_scaling_runs_the_stage_with_each_number_of_processes_and_compares(project, tmp_path):
    write_script(project / STAGES[2].name, SCALED)
    settings = {"DATASET_BASE_PATH": "data", "PROCESSES": "1 4", "STEPS": 3, "TMPDIR": tmp_path}
    done = shell(project / "tools/scale.sh", 2, "--lora_rank", 4, cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["--lora_rank 4 1 3 1", "--lora_rank 4 4 3 1"]
    assert done.stdout.splitlines()[2:] == ["| 1 | 10 | 100% | 10.0% |", "| 4 | 40 | 100% | 10.0% |"]
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize(("arguments", "expected"), [((), "needs the stage, 1 or 2"), ((1,), "tools/demo.sh first")])
def test_scaling_says_what_is_missing(project, tmp_path, arguments, expected):
    done = shell(project / "tools/scale.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
