"""Running the project's shell scripts as from a login shell, with stand-ins for what they start."""

import os
import subprocess
from pathlib import Path

from tests.support.runs import ROOT

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
