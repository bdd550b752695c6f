"""All of the DiT's weights trained, without heads: what trains, what is saved, and where it goes on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffsynth.core import ModelConfig
from diffsynth.pipelines.wan_video import WanVideoPipeline
from safetensors.torch import load_file

from motion_depth.checkpoints.checkpoint import read_checkpoint
from motion_depth.checkpoints.models import load_model
from motion_depth.checkpoints.schema import DIT_FILE
from motion_depth.model.wan import Wan
from motion_depth.tiny.model import register_model_configs
from motion_depth.training.optimizer import STATE_FILE
from tests.support.inprocess import train
from tests.support.runs import SMALL_STAGE_2, rows

HEADS_OFF = ["--motion_loss_weight", 0, "--depth_loss_weight", 0]
DECAY = 0.5


@pytest.fixture(scope="module")
def flags(data_flags, demo_csv, tmp_path_factory) -> list:
    """Of a run of four updates, with nothing of stage 1."""
    folder = tmp_path_factory.mktemp("full")
    head, *lines = demo_csv.read_text().splitlines()
    for name, chosen in {"train": lines[:2], "val": lines[2:]}.items():
        (folder / f"{name}.csv").write_text("\n".join([head, *chosen]))
    return ["--stage", 2, "--tune", "full", *data_flags, *SMALL_STAGE_2, *HEADS_OFF,
            "--dataset_metadata_path", folder / "train.csv", "--val_metadata_path", folder / "val.csv",
            "--cache_path", folder / "cache", "--gradient_accumulation_steps", 1, "--batch_size", 2, "--max_steps", 4,
            "--save_steps", 2, "--dit_learning_rate", 1e-3, "--ema_decay", DECAY]  # fmt: skip


@pytest.fixture(scope="module")
def run(flags) -> Path:
    output = flags[flags.index("--cache_path") + 1].parent / "run"
    done = train(*flags, "--output_path", output)
    assert done.code == 0, done.err
    assert "head" not in done.out + done.err
    return output


def test_the_loss_falls_and_validation_says_the_flow_error_of_each_level(run):
    logged = rows(run)
    losses = [row["flow_loss"] for row in logged if row.get("group") is None]
    assert len(losses) == 4
    first, last = (row for row in logged if row.get("group") == "val")
    assert last["score"] < first["score"]
    assert {
        f"{name}/sigma_{sigma}"
        for name in ("flow_error", "flow_error_baseline")
        for sigma in (0.02, 0.25, 0.5, 0.75, 1.0)
    } < last.keys()
    assert not any("motion" in name or "depth" in name for row in logged for name in row)


def state(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / STATE_FILE)
    return {name.removeprefix(f"{kind}/dit."): value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def test_what_is_saved(run):
    """The step folder has float32 masters and their average, of which the model file is the rounded one."""
    masters, average, saved = (
        state(run / "step-4", "weights"),
        state(run / "step-4", "average"),
        load_file(run / "step-4" / DIT_FILE),
    )
    assert masters.keys() == average.keys() == saved.keys()
    assert all(value.dtype == torch.float32 for value in masters.values())
    assert all(torch.equal(saved[name], value.bfloat16()) for name, value in average.items())
    assert any(not torch.equal(value, value.bfloat16().float()) for value in masters.values())
    assert {path.name for path in (run / "final").iterdir()} == {DIT_FILE, "config.json", "manifest.json"}
    config = json.loads((run / "final/config.json").read_text())
    assert config["heads"] is config["statistics"] is config["lora"] is None


def test_resuming_gives_the_same_run_bit_for_bit(flags, run, tmp_path):
    shutil.copytree(run, tmp_path / "out")
    for name in ("final", "best", "step-4"):
        shutil.rmtree(tmp_path / "out" / name)
    done = train(*flags, "--output_path", tmp_path / "out", "--resume", "auto")
    assert done.code == 0, done.err
    for file in (STATE_FILE, DIT_FILE):
        ours, theirs = load_file(tmp_path / "out/step-4" / file), load_file(run / "step-4" / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rows(tmp_path / "out")[-1] == rows(run)[-1]


def test_the_stock_pipeline_loads_it_in_place_of_the_dit(run, tiny_wan):
    register_model_configs(tiny_wan)
    pipe = WanVideoPipeline.from_pretrained(
        torch_dtype=torch.bfloat16, device="cpu", model_configs=[ModelConfig(path=str(run / "final" / DIT_FILE))],
        redirect_common_files=False, tokenizer_config=None,
    )  # fmt: skip
    saved, before = (
        load_file(run / "final" / DIT_FILE),
        Wan.in_folder(tiny_wan).load_dit(torch.bfloat16, "cpu").state_dict(),
    )
    assert all(torch.equal(value, saved[name]) for name, value in pipe.dit.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in saved.items())


def test_loaded_for_inference_it_is_the_dit(run, tiny_wan):
    model = load_model(read_checkpoint(run / "final"), Wan.in_folder(tiny_wan).load_dit(torch.bfloat16, "cpu"), "cpu")
    saved = load_file(run / "final" / DIT_FILE)
    assert all(torch.equal(value, saved[name]) for name, value in model.dit.state_dict().items())
    assert model.heads is None
