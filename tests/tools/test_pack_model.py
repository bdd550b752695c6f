"""tools/demo/pack_model.py: a trained DiT takes the random one's place, its card says what it was made of."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from motion_depth.checkpoints.schema import DIT_FILE
from motion_depth.settings import DEFAULTS
from motion_depth.tiny import model as tiny
from tests.support.tool_runs import make_tuned_checkpoint
from tools.demo import pack_model

RUN = {name: DEFAULTS[name] for name in pack_model.TOLD} | {"batch_size": 4, "noise_mixture": "1,0,1"}


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory) -> Path:
    """What pretraining leaves: scenes with their list, a VAE with its scores, a run with its log and final/."""
    folder = tmp_path_factory.mktemp("pretrain")
    for name in ("train", "vae", "dit"):
        (folder / name).mkdir()
    (folder / "train" / pack_model.SCENES_FILE).write_text('{"seed": 0}')
    (folder / "train.csv").write_text("video,prompt\na,A.\nb,B.\n")
    (folder / "vae/scores.json").write_text('{"settings": {"crop": 64}, "scores": [{"step": 0}, {"step": 9}]}')
    rows = [{"step": step, "clips_per_s": 2.0, "flow_error": 1 / step} for step in (1, 2, 4)]
    (folder / "dit" / pack_model.LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"dataset_base_path": str(folder / "train"), "dataset_metadata_path": str(folder / "train.csv")}
    dit = tiny_backbone.random_dit(torch.float32, "cpu", seed=7)
    make_tuned_checkpoint(folder / "dit/final", dit, **RUN, **places)
    return folder


@pytest.fixture
def pack(trained, tiny_wan, tmp_path, monkeypatch, capsys):
    """Runs the tool with some flags changed; exit code and what it says on standard error."""
    flags = {"model": tiny_wan, "checkpoint": trained / "dit/final", "vae": trained / "vae", "output": tmp_path / "out"}

    def run(**changes: object) -> tuple[int, str]:
        words = [word for name, value in (flags | changes).items() for word in (f"--{name}", str(value))]
        monkeypatch.setattr("sys.argv", ["pack_model.py", *words])
        return pack_model.main(), capsys.readouterr().err

    return run


def test_the_trained_dit_takes_the_random_ones_place(pack, trained, tiny_wan, tmp_path):
    assert pack() == (0, "")
    packed, out = load_file(trained / "dit/final" / DIT_FILE), tmp_path / "out"
    found = load_file(out / tiny.DIT_FILE)
    assert found.keys() == packed.keys()
    assert all(torch.equal(found[name], packed[name]) for name in packed)
    for name in tiny.model_digests(tiny_wan):
        assert (out / name).read_bytes() == (tiny_wan / name).read_bytes()
    assert not (out / "tiny_wan.json").exists()

    card = json.loads((out / pack_model.CARD).read_text())
    assert card["scenes"] == {"seed": 0, "scenes": 2}
    assert card["vae"] == {"settings": {"crop": 64}, "step": 9}
    assert card["dit"] == RUN | {"steps": 4, "clips": 16, "hours": 0.0, "flow_error_last_500": 0.5833}
    assert card["torch"] == torch.__version__
    assert set(card["fixed_clip"]) == {"1", "0.5"}
    assert min(card["fixed_clip"].values()) > 1  # it has learned nothing

    code, err = pack()
    assert (code, err.count("\n")) == (2, 1)
    assert f"--output {out}: there is something of that name" in err


def test_what_does_not_fit_is_refused_before_anything_is_written(pack, lora_checkpoint, small_dit, tmp_path):
    other = make_tuned_checkpoint(tmp_path / "other/final", small_dit)
    (tmp_path / "vae").mkdir()
    cases = {
        "has no dit.safetensors; give one of a run with --tune full": {"checkpoint": lora_checkpoint},
        str(other): {"checkpoint": other},
        "scores.json": {"vae": tmp_path / "vae"},
    }
    for said, changes in cases.items():
        code, err = pack(**changes)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
        assert not (tmp_path / "out").exists()
