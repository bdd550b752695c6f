"""Running the project's shell scripts as from a login shell, with stand-ins for what they start."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

from tests.support.runs import ROOT

# A stand-in for Python answers the stage scripts' questions (how many GPUs) and prints the command it was given.
FAKE_PYTHON = """#!/usr/bin/env bash
[[ "$1" != -c ]] || exit 0
if [[ "$*" == "-m motion_depth.processes.devices" ]]; then
    echo "${FAKE_GPUS:-0}"
    exit 0
fi
printf '%s\\n' "use_cpu=${ACCELERATE_USE_CPU:-}" "threads=${OMP_NUM_THREADS:-}" COMMAND "$@"
exit "${FAKE_STATUS:-0}"
"""
STAGES = {1: ROOT / "train_wan22_stage1_heads.sh", 2: ROOT / "train_wan22_stage2_lora.sh"}


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
    for word, following in pairwise([*words, "--"]):
        if word.startswith("--"):
            flags[word.removeprefix("--")] = True if following.startswith("--") else following
    return flags
