"""Checkpoint folders: whole or not there, verified, rotated, and the optimizer's state in them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from motion_depth.checkpoints import checkpoint
from motion_depth.checkpoints.checkpoint import newest_valid, read_folder, rotate, write_checkpoint
from motion_depth.files import folders
from motion_depth.training.optimizer import capture, restore
from tests.support.inprocess import snapshot

FILE = "motion_head.safetensors"
TENSORS = {FILE: {"weight": torch.arange(6.0).reshape(2, 3)}}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    write_checkpoint(tmp_path / "out/step-5", TENSORS, {"prompt": "\u00e4 <b>"})
    found = read_folder(tmp_path / "out/step-5")
    assert found.config == json.loads((tmp_path / "out/step-5/config.json").read_text()) == {"prompt": "\u00e4 <b>"}
    assert torch.equal(found.tensors(FILE)["weight"], TENSORS[FILE]["weight"])
    assert names(tmp_path / "out") == ["step-5"]
    assert found.has(FILE)
    assert not found.has("lora.safetensors")


def test_replacing_keeps_the_old_one_until_the_new_one_stands(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(0, "no way")

    write_checkpoint(tmp_path / "final", TENSORS, {"run": 1})
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"final: cannot be written \(no way\)"):
        patch.setattr(checkpoint, "save", fail)
        write_checkpoint(tmp_path / "final", TENSORS, {"run": 2})
    assert read_folder(tmp_path / "final").config == {"run": 1}
    assert names(tmp_path) == ["final"]
    write_checkpoint(tmp_path / "final", TENSORS, {"run": 3})
    assert read_folder(tmp_path / "final").config == {"run": 3}
    assert names(tmp_path) == ["final"]


@pytest.mark.parametrize("exchange", [True, False])
def test_what_a_link_in_a_checkpoints_place_leads_to_stays(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    archive, output = tmp_path / "archive", tmp_path / "out"
    write_checkpoint(archive, TENSORS, {})
    before = snapshot(archive)
    output.mkdir()
    for name in ("final", "step-1"):
        (output / name).symlink_to(archive)
    write_checkpoint(output / "final", TENSORS, {})
    write_checkpoint(output / "step-2", TENSORS, {})
    rotate(output, 1, 2)
    assert snapshot(archive) == before
    assert not (output / "final").is_symlink()
    assert names(output) == ["final", "step-1", "step-2"]


DAMAGES = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), rf"{FILE}: \d+ bytes, the manifest says"),
    "changed": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), f"{FILE}: its checksum"),
    "missing": (Path.unlink, f"{FILE}: missing"),
    "no manifest": (lambda path: path.with_name("manifest.json").write_text("{"), "not a checkpoint folder"),
    "elsewhere": (lambda path: path.parent.rename(path.parents[1] / "moved"), "no such checkpoint folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(tmp_path, damage):
    write_checkpoint(tmp_path / "step-1", TENSORS, {})
    DAMAGES[damage][0](tmp_path / "step-1" / FILE)
    with pytest.raises(ValueError, match=DAMAGES[damage][1]):
        read_folder(tmp_path / "step-1")


def test_the_newest_whole_one_is_found(tmp_path):
    for step in (5, 10, 20):
        write_checkpoint(tmp_path / f"step-{step}", TENSORS, {"step": step})
    (tmp_path / "step-20/config.json").write_text("{}  ")
    (tmp_path / ".step-30.1.partial").mkdir()
    step, found, messages = newest_valid(tmp_path)
    assert (step, found.config) == (10, {"step": 10})
    assert ["step-20" in message for message in messages] == [True]
    assert newest_valid(tmp_path / "empty") == (0, None, [])


def test_rotation_spares_final_and_best(tmp_path):
    for name in ("step-5", "step-10", "step-100", "final", "best"):
        write_checkpoint(tmp_path / name, TENSORS, {})
    assert list(rotate(tmp_path, 0, 100)) == []
    rotate(tmp_path, 2, 100)
    assert names(tmp_path) == ["best", "final", "step-10", "step-100"]
    rotate(tmp_path, 1, 10)  # step-100 was passed over as damaged: it must not push out step-10
    assert names(tmp_path) == ["best", "final", "step-10", "step-100"]


def test_the_optimizer_comes_back_bit_for_bit():
    def run(split: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        model[0].bias.requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for step in range(6):
            if split and step == 4:  # between two updates of two steps each
                state, weights = (
                    capture(model, optimizer, None, False),
                    {k: v.clone() for k, v in model.state_dict().items()},
                )
                model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
                model[0].bias.requires_grad_(False)
                model.load_state_dict(weights)
                optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
                restore(model, optimizer, None, state)
            model(torch.full((1, 3), float(step))).square().sum().backward()
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
        return list(model.parameters())

    for whole, resumed in zip(run(False), run(True), strict=True):
        assert torch.equal(whole, resumed)


def test_state_of_another_model_is_refused():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match=r"no parameter is called other\.weight"):
        restore(model, optimizer, None, {"optimizer/other.weight/step": torch.tensor(1.0)})
