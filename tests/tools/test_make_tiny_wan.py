"""tools/demo/make_tiny_wan.py: what it writes, what it leaves alone, and what it says about bad input."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from motion_depth.tiny import model as tiny
from motion_depth.tiny.vae import fit_vae, save_vae
from tests.support.inprocess import snapshot
from tests.support.moving_squares import SCENES, windows, write_scenes

ROOT = Path(__file__).resolve().parents[2]


def load_tool():
    spec = importlib.util.spec_from_file_location("make_tiny_wan", ROOT / "tools/demo/make_tiny_wan.py")
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


def test_a_trained_vae_takes_the_fits_place(tmp_path, dataset, monkeypatch, capsys):
    vae = fit_vae(windows(), decoder=(16, 12, 8))
    vae.model.decoder.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    save_vae(vae, tmp_path / "vae.safetensors")
    flags = ("--vae", tmp_path / "vae.safetensors", "--output", tmp_path / "tiny", "--dim", 48, "--num_layers", 2)
    code, _, err = run_tool(monkeypatch, capsys, *flags, "--ffn_dim", 100)
    assert code == 0, err
    entries = {entry["model_name"]: entry for entry in json.loads((tmp_path / "tiny" / tiny.CONFIG_FILE).read_text())}
    assert entries["wan_video_vae"]["extra_kwargs"] == vae.arguments
    assert entries["wan_video_dit"]["extra_kwargs"]["ffn_dim"] == 100
    written = safetensors.torch.load_file(tmp_path / "tiny" / tiny.VAE_FILE)
    trained = safetensors.torch.load_file(tmp_path / "vae.safetensors")
    assert written.keys() == trained.keys()
    assert all(torch.equal(written[name], trained[name]) for name in trained)
    assert written["model.decoder.out.weight"].dtype == torch.bfloat16

    assert "made from the same VAE" in run_tool(monkeypatch, capsys, *flags, "--ffn_dim", 100)[1]
    assert "made otherwise (ffn_dim)" in run_tool(monkeypatch, capsys, *flags)[2]
    vae.model.mean.add_(1)
    save_vae(vae, tmp_path / "vae.safetensors")
    assert "made otherwise (vae)" in run_tool(monkeypatch, capsys, *flags, "--ffn_dim", 100)[2]
    code, _, err = run_tool(monkeypatch, capsys, "--vae", tmp_path / "tiny" / tiny.DIT_FILE, *flags[2:])
    assert (code, err.count("\n")) == (2, 1)
    assert "not a small VAE" in err


def test_like_a_model_but_untrained(small_model, tmp_path, monkeypatch, capsys):
    flags = ("--like", small_model[0], "--output", tmp_path / "like", "--seed", 1)
    run_tool(monkeypatch, capsys, *flags)
    assert "made from the same model" in run_tool(monkeypatch, capsys, *flags)[1]
    assert "made otherwise (seed)" in run_tool(monkeypatch, capsys, *flags[:-1], 2)[2]
    refused = f"error: --dim: --like {small_model[0]} has its own; give one of the two\n"
    assert run_tool(monkeypatch, capsys, *flags, "--dim", 48)[::2] == (2, refused)


def test_a_model_of_the_version_before_is_not_taken_for_this_one(small_model, tmp_path, monkeypatch, capsys):
    model, flags = small_model
    shutil.copytree(model, tmp_path / "tiny")
    settings = json.loads((tmp_path / "tiny" / "tiny_wan.json").read_text())
    (tmp_path / "tiny" / "tiny_wan.json").write_text(json.dumps(settings | {"format": make_tiny_wan.FORMAT - 1}))
    code, _, err = run_tool(monkeypatch, capsys, *flags, "--output", tmp_path / "tiny")
    assert code == 2
    assert "made otherwise (format)" in err


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


def change_file(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"mine")


def forget_files(folder: Path) -> None:
    """As a version before wrote it."""
    found = json.loads((folder / "tiny_wan.json").read_text())
    del found["files"]
    (folder / "tiny_wan.json").write_text(json.dumps(found))


NOT_ITS_OWN = {
    "a file beside": (lambda f: change_file(f, "notes.txt"), "holds notes.txt"),
    "a file inside": (lambda f: change_file(f, "google/umt5-xxl/notes.txt"), "holds google/umt5-xxl/notes.txt"),
    "a hidden file": (lambda f: change_file(f, "google/.notes"), "holds google/.notes"),
    "a folder": (lambda f: (f / "google/runs").mkdir(), "holds google/runs"),
    "a link": (lambda f: (f / "more").symlink_to(f), "holds more"),
    "a link in place of a file": (
        lambda f: (f / tiny.VAE_FILE).rename(f.parent / "vae") and (f / tiny.VAE_FILE).symlink_to(f.parent / "vae"),
        f"holds {tiny.VAE_FILE}",
    ),
    "other weights": (lambda f: change_file(f, tiny.VAE_FILE), f"{tiny.VAE_FILE} is not as it was written"),
    "another tokenizer": (
        lambda f: change_file(f, "google/umt5-xxl/tokenizer.json"), "tokenizer.json is not as it was written"
    ),
    "no settings": (lambda f: (f / "tiny_wan.json").unlink(), "does not say which files this tool wrote"),
    "settings of something else": (lambda f: (f / "tiny_wan.json").write_text("[]"), "does not say which files"),
    "an older model": (forget_files, "does not say which files this tool wrote"),
}  # fmt: skip


@pytest.fixture(scope="module")
def small_model(dataset, tmp_path_factory) -> tuple[Path, tuple[object, ...]]:
    """A small tiny model, and the flags that made it but for --output."""
    folder, flags = tmp_path_factory.mktemp("model") / "tiny", ("--dataset_base_path", dataset, "--dim", 48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["make_tiny_wan.py", *map(str, flags), "--output", str(folder)])
        make_tiny_wan.main()
    return folder, flags


@pytest.mark.parametrize("case", NOT_ITS_OWN)
def test_only_what_it_wrote_itself_is_replaced(case, small_model, tmp_path, monkeypatch, capsys):
    model, flags = small_model
    folder = tmp_path / "tiny"
    shutil.copytree(model, folder)
    change, message = NOT_ITS_OWN[case]
    change(folder)
    before = snapshot(tmp_path)
    code, _, err = run_tool(monkeypatch, capsys, *flags, "--output", folder, "--overwrite", "--seed", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert snapshot(tmp_path) == before


def test_what_comes_while_the_model_is_made_is_kept(small_model, tmp_path, monkeypatch, capsys):
    model, flags = small_model
    folder, write = tmp_path / "tiny", tiny.write_tiny_wan
    shutil.copytree(model, folder)

    def write_late(*arguments: object, **others: object) -> object:
        change_file(folder, "notes.txt")
        return write(*arguments, **others)

    monkeypatch.setattr(tiny, "write_tiny_wan", write_late)
    code, _, err = run_tool(monkeypatch, capsys, *flags, "--output", folder, "--overwrite", "--seed", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert (folder / "notes.txt").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_model_of_an_older_version_stands(small_model, tmp_path, monkeypatch, capsys):
    model, flags = small_model
    folder = tmp_path / "tiny"
    shutil.copytree(model, folder)
    forget_files(folder)
    code, out, err = run_tool(monkeypatch, capsys, *flags, "--output", folder)
    assert code == 0, err
    assert "stands" in out


def test_a_linked_folder_is_replaced_where_the_link_leads(small_model, tmp_path, monkeypatch, capsys):
    model, flags = small_model
    shutil.copytree(model, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert run_tool(monkeypatch, capsys, *flags, "--output", tmp_path / "link", "--overwrite", "--seed", 1)[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real/tiny_wan.json").read_text())["seed"] == 1


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
    (base / "scene" / "rgb" / "f2.png").unlink()
    os.mkfifo(base / "scene" / "rgb" / "f2.png")
    code, _, err = run_tool(monkeypatch, capsys, "--dataset_base_path", base, "--output", tmp_path / "out")
    assert code == 2
    assert "f2.png: not a readable picture (it is a named pipe" in err
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
