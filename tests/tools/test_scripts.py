"""The tools' shell scripts: how setup.sh builds, what run.sh, demo.sh, ablate.sh and scale.sh hand on."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.runs import ROOT
from tests.support.shells import STAGES, shell, write_script


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the scripts in a project without requirements, so that setting it up needs no network."""
    folder = tmp_path / "project"
    tools = [f"tools/{name}.sh" for name in ("setup", "demo", "demo/settings", "demo/ablate", "demo/scale")]
    for name in (*tools, "tests/run.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (folder / name).write_text("# none\n")
    return folder


def refusal(done: subprocess.CompletedProcess) -> str:
    """The one line that a script ends with."""
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


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


def with_files(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv/mine.txt").touch()


OLD = '#!/bin/sh\ncase "$2" in *platform*) echo 3.9.1;; *version_info*) exit 1;; esac\n'
UNUSABLE = {
    "holds files but no Python environment": (with_files, {}),
    "is not a folder": (lambda project: (project / ".venv").touch(), {}),
    "is a link to a folder that does not exist": (lambda project: (project / ".venv").symlink_to("nowhere"), {}),
    "PYTHON=no-such-python does not run": (lambda project: None, {"PYTHON": "no-such-python"}),
    "PYTHON=./old is Python 3.9.1, but 3.10 or newer is needed": (
        lambda project: write_script(project / "old", OLD), {"PYTHON": "./old"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("expected", UNUSABLE)
def test_setup_refuses_what_it_cannot_use(project, expected):
    prepare, environment = UNUSABLE[expected]
    prepare(project)
    assert expected in refusal(shell(project / "tools/setup.sh", cwd=project, **environment))


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
        *("make_scenes.py", "make_metadata.py") * 2,
        "make_tiny_wan.py",
        "evaluate.py",
        "generate.py",
        "show_losses.py",
    ]
    assert [line for line in lines if line.startswith("train")] == [
        f"{STAGES[1].name} 0 d/stage1 5 d/train.csv d/tiny_wan d/stage1",
        f"{STAGES[2].name} 0 d/stage2 6 d/train.csv d/tiny_wan d/stage1",
    ]


FRESH_PYTHON = """#!/bin/sh
case "$1 $2 $#" in
"-m venv 3") mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python" ;;
"-m pip "*)
    [ "$3" = install ] || exit 0
    echo "WARNING: a remark of pip" >&2
    exit ${FAILING_PIP:-0} ;;
"-c import platform; "*) echo 3.12.0 ;;
"-c "*) ;;
"-  1") ;;
"- "*) echo requirements ;;
*) echo "$0" ;;
esac
"""


@pytest.mark.parametrize("asked", [{}, {"PYTHON": "python3.12"}])
@pytest.mark.parametrize("first", ["tools/demo.sh", "tests/run.sh"])
def test_each_command_of_the_readme_can_be_the_very_first(project, tmp_path, first, asked):
    """After `git clone`: no environment there and none named, from another folder, in a path with spaces."""
    there = project.rename(tmp_path / "my project")
    for script in STAGES.values():
        write_script(there / script.name, f'"$PYTHON" {script.name}')
    for name in ("python3", "python3.12"):
        write_script(tmp_path / "bin" / name, FRESH_PYTHON)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = shell(there / first, cwd=tmp_path, PATH=path, **asked)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    made, _, ready, *others = [line for line in done.stdout.splitlines() if line and not line.startswith("==")]
    assert (made, ready) == (
        f"Making the Python environment {there}/.venv ...",
        f"Python environment {there}/.venv is ready.",
    )
    runs = [line for line in others if line == f"{there}/.venv/bin/python"]
    assert len(runs) == (10 if first == "tools/demo.sh" else 1)
    assert not [line for line in others if "/bin/python" in line and line not in runs]


def test_what_pip_says_is_shown_only_if_it_fails(project, tmp_path):
    write_script(tmp_path / "bin/python3", FRESH_PYTHON)
    settings = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": tmp_path}
    done = shell(project / "tools/setup.sh", cwd=tmp_path, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    (project / ".venv/.requirements.sha256").unlink()
    done = shell(project / "tools/setup.sh", cwd=tmp_path, FAILING_PIP=1, **settings)
    assert done.returncode == 2
    first, last = done.stderr.splitlines()
    assert first == "WARNING: a remark of pip"
    assert last.startswith("error: pip could not install requirements-dev.txt")
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize(("free", "workers"), [(65536, "0"), (25165824, "2")])
def test_the_demo_loads_without_processes_where_shared_memory_is_small(project, tmp_path, free, workers):
    write_script(tmp_path / "bin/df", f"#!/bin/sh\necho Filesystem\necho shm {free} 0 {free} 0% /dev/shm\n")
    program = f'ROOT={project}; source {project}/tools/demo/settings.sh; echo "$DATASET_NUM_WORKERS"'
    script = write_script(tmp_path / "ask.sh", program)
    done = shell(script, cwd=tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.stdout == f"{workers}\n", done.stderr


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
        done = shell(project / "tools/demo/ablate.sh", "linear", "--head", "linear", cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    trained, evaluated, _, first = row()
    assert trained == "stage 1: --head linear d/ablation/linear 7 16 d/tiny_wan"
    assert evaluated == "python evaluate.py"
    assert first == "| linear | 0.100 | 2.00 | 0.300 | 0.50, 0.50, 0.50 | 0.80, 0.80, 0.80 |"
    assert row()[-1] == first
    assert len(row()) == 2  # printed again, not trained again


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
    done = shell(project / "tools/demo/scale.sh", 2, "--lora_rank", 4, cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["--lora_rank 4 1 3 1", "--lora_rank 4 4 3 1"]
    assert done.stdout.splitlines()[2:] == ["| 1 | 10 | 100% | 10.0% |", "| 4 | 40 | 100% | 10.0% |"]
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        *(("ablate", (), "needs a name"), ("ablate", ("dense",), "run tools/demo.sh first")),
        *(("scale", (), "needs the stage, 1 or 2"), ("scale", (1,), "tools/demo.sh first")),
    ],
)
def test_ablations_and_scaling_say_what_is_missing(project, tmp_path, script, arguments, expected):
    assert expected in refusal(shell(project / f"tools/demo/{script}.sh", *arguments, cwd=tmp_path))
