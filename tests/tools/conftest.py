"""The stage scripts with a stand-in for Python."""

import subprocess
from pathlib import Path

import pytest

from tests.support.shells import FAKE_PYTHON, STAGES, shell, write_script


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
