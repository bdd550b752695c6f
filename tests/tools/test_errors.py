"""Every tool ends with one line and exit code 2 where it cannot do what it was asked to."""

import pytest

from tests.support.runs import ROOT, run_python

SCENES = "--dataset_base_path no --dataset_metadata_path no.csv"
ERRORS = {
    f"evaluate.py --checkpoint no --model_base_path no {SCENES} --output out --device cuda:3": (
        "--device cuda:3: found 0 CUDA devices that can be used; expected another, or cpu"
    ),
    "generate.py --checkpoint no --output out --image x.png --prompt x": "no: no such checkpoint folder",
    "benchmark.py --steps 0": "--steps: found 0, expected 1 or more",
    "show_losses.py no": "no/log.jsonl: there is no such file; give the OUTPUT_PATH of a run",
    "make_metadata.py --dataset_base_path no --output out": "--dataset_base_path no: there is no such folder",
}


@pytest.mark.parametrize("command", ERRORS)
def test_an_error_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tool, *flags = command.split()
    done = run_python(ROOT / "tools" / tool, *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {ERRORS[command]}")
    assert not list(tmp_path.iterdir())
