"""A small model as it was before its DiT was trained."""

import shutil

import pytest
import safetensors.torch
import torch

from motion_depth.tiny import model as tiny


def test_all_is_copied_but_the_dit_which_is_drawn_as_at_the_start(folder, tmp_path):
    trained = tmp_path / "trained"
    shutil.copytree(folder, trained)
    (trained / "card.json").write_text("{}")  # of the trained weights
    before = safetensors.torch.load_file(folder / tiny.DIT_FILE)
    safetensors.torch.save_file({name: value + 1 for name, value in before.items()}, trained / tiny.DIT_FILE)
    drawn = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        tiny.write_untrained(tmp_path / str(seed), trained, seed)
        drawn.append(safetensors.torch.load_file(tmp_path / str(seed) / tiny.DIT_FILE))
    assert all(torch.equal(drawn[0][name], value) for name, value in before.items())
    assert any(not torch.equal(drawn[1][name], value) for name, value in before.items())

    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "0") for path in (tmp_path / "0").rglob("*") if path.is_file()} == files
    assert {name.as_posix() for name in files} == {tiny.DIT_FILE, *tiny.model_digests(folder)}
    for name in tiny.model_digests(folder):
        assert (tmp_path / "0" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("gone", [tiny.CONFIG_FILE, tiny.VAE_FILE, tiny.TOKENIZER_FOLDER])
def test_what_is_no_model_is_refused(folder, tmp_path, gone):
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / gone) if gone == tiny.TOKENIZER_FOLDER else (tmp_path / "model" / gone).unlink()
    with pytest.raises(ValueError, match="model"):
        tiny.write_untrained(tmp_path, tmp_path / "model", seed=0)
    with pytest.raises(ValueError, match=f"has no {gone}"):
        tiny.model_digests(tmp_path / "model")
