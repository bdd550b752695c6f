"""tools/make_tiny_wan.py: what it writes, what it leaves alone, and what it says about bad input."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motion_depth import tiny
from tests.moving_squares import SCENES, write_scenes

ROOT = Path(__file__).resolve().parents[1]


def load_tool():
    spec = importlib.util.spec_from_file_location("make_tiny_wan", ROOT / "tools" / "make_tiny_wan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_tiny_wan = load_tool()


def run_tool(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of the tool's `main`."""
    monkeypatch.setattr("sys.argv", ["make_tiny_wan.py", *map(str, arguments)])
    code = 0
    try:
        make_tiny_wan.main()
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("dataset"))


def test_same_frames_and_seed_give_the_same_files(tmp_path, dataset, monkeypatch, capsys):
    contents = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        code, out, err = run_tool(
            monkeypatch, capsys, "--dataset_base_path", dataset, "--output", tmp_path / name, "--seed", seed
        )
        assert code == 0, err
        assert "PSNR" in out
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        contents[name] = {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files}
    assert contents["a"] == contents["b"]
    assert contents["a"][tiny.DIT_FILE] != contents["c"][tiny.DIT_FILE]
    assert {path.name for path in (tmp_path / "a").iterdir()} == make_tiny_wan.MODEL_ENTRIES
    assert sum(map(len, contents["a"].values())) < 8e6
    settings_mode = (tmp_path / "a" / "tiny_wan.json").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "a").iterdir() if path.is_file()} == {settings_mode}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]  # no scratch folder stays


def test_standing_model_is_kept_and_another_one_never_overwritten_unasked(tmp_path, dataset, monkeypatch, capsys):
    flags = ("--dataset_base_path", dataset, "--output", tmp_path / "tiny", "--dim", 48, "--num_layers", 2)
    assert run_tool(monkeypatch, capsys, *flags)[0] == 0
    written = (tmp_path / "tiny" / tiny.DIT_FILE).stat().st_mtime_ns

    code, out, _ = run_tool(monkeypatch, capsys, *flags)
    assert code == 0
    assert "stands" in out
    code, _, err = run_tool(monkeypatch, capsys, *flags, "--seed", 1)
    assert code == 2
    assert err.startswith("error: --output")
    assert "made otherwise (seed)" in err
    (tmp_path / "tiny" / tiny.VAE_FILE).unlink()
    code, _, err = run_tool(monkeypatch, capsys, *flags)
    assert code == 2
    assert "files are missing" in err
    assert (tmp_path / "tiny" / tiny.DIT_FILE).stat().st_mtime_ns == written

    assert run_tool(monkeypatch, capsys, *flags, "--seed", 1, "--overwrite")[0] == 0
    assert json.loads((tmp_path / "tiny" / "tiny_wan.json").read_text())["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_folder_with_other_files_is_never_overwritten(tmp_path, dataset, monkeypatch, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = run_tool(monkeypatch, capsys, "--dataset_base_path", dataset, "--output", tmp_path, "--overwrite")
    assert code == 2
    assert "holds thesis.tex" in err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_changed_frames_are_noticed(tmp_path, dataset, monkeypatch, capsys):
    base = tmp_path / "dataset"
    base.symlink_to(dataset)
    flags = ("--dataset_base_path", base, "--output", tmp_path / "tiny", "--dim", 48, "--num_layers", 2)
    assert run_tool(monkeypatch, capsys, *flags)[0] == 0
    base.unlink()
    write_scenes(base, range(3, 6))
    code, _, err = run_tool(monkeypatch, capsys, *flags)
    assert code == 2
    assert "made otherwise (frames)" in err


def scene_of(base: Path, names: list[str], shape: tuple[int, int] = (32, 32)) -> Path:
    folder = base / "scene" / "rgb"
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.zeros((*shape, 3), dtype=np.uint8)).save(folder / name)
    return base


@pytest.mark.parametrize(
    ("names", "shape", "message"),
    [
        ([], (32, 32), "no frames found"),
        ([f"f{i}.png" for i in range(4)], (32, 32), "scene scene: 4 frames in rgb/, expected at least 5"),
        (["a.png", *(f"f{i}.png" for i in range(5))], (32, 32), "expected a frame number"),
        ([f"f{i}.png" for i in range(5)], (12, 32), "12x32 pixels"),
    ],
)
def test_bad_dataset_is_a_one_line_error(tmp_path, monkeypatch, capsys, names, shape, message):
    base = scene_of(tmp_path / "data", names, shape)
    code, _, err = run_tool(monkeypatch, capsys, "--dataset_base_path", base, "--output", tmp_path / "out")
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unreadable_frame_and_missing_folder_are_one_line_errors(tmp_path, monkeypatch, capsys):
    base = scene_of(tmp_path / "data", [f"f{i}.png" for i in range(5)])
    (base / "scene" / "rgb" / "f2.png").write_bytes(b"no picture")
    code, _, err = run_tool(monkeypatch, capsys, "--dataset_base_path", base, "--output", tmp_path / "out")
    assert code == 2
    assert "f2.png: not a readable picture" in err
    code, _, err = run_tool(monkeypatch, capsys, "--dataset_base_path", tmp_path / "no", "--output", tmp_path / "out")
    assert code == 2
    assert err == f"error: --dataset_base_path {tmp_path / 'no'}: no such folder\n"


def test_windows_cover_all_scenes_and_keep_the_frames_in_order(dataset):
    scenes = make_tiny_wan.find_scenes(dataset)
    assert list(scenes) == [f"test_scene_{seed}/env_0/0/0" for seed in range(SCENES)]
    windows = make_tiny_wan.choose_windows(scenes)
    assert {window[0].parents[4].name for window in windows} == {f"test_scene_{seed}" for seed in range(SCENES)}
    steps = set()
    for window in windows:
        numbers = [int(path.stem.removeprefix("step_")) for path in window]
        steps |= set(np.diff(numbers).tolist())
        assert len(set(np.diff(numbers).tolist())) == 1
    assert steps == {1, 2}
