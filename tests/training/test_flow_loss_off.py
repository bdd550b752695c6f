"""Stage 2 without the flow-matching loss: what lies behind the last block that the heads read has no LoRA."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from motion_depth.checkpoints.checkpoint import read_checkpoint
from motion_depth.checkpoints.models import LORA_FILE, load_model, read_lora_config
from motion_depth.generation.sample import load_fused
from motion_depth.model.lora import add_lora, load_lora, lora_state_dict
from motion_depth.model.wan import Wan
from tests.support.inprocess import must_train, refused
from tests.support.runs import SMALL, SMALL_STAGE_2, weights

OFF, LAST = ["--flow_loss_weight", 0], 4  # of the tiny model's ten blocks the heads below read 1 and 4
TARGETS = "q,ffn.2,head.head"


@pytest.fixture(scope="module")
def heads(data_flags, tmp_path_factory) -> Path:
    """Heads that read the first half of the DiT."""
    output = tmp_path_factory.mktemp("flow") / "heads"
    must_train("--stage", 1, *data_flags, *SMALL, "--head_taps", "0.25,0.5", "--max_steps", 2, "--save_steps", 0,
                 "--output_path", output)  # fmt: skip
    return output / "final"


@pytest.fixture(scope="module")
def flags(data_flags) -> list:
    return ["--stage", 2, *data_flags, *SMALL_STAGE_2, "--lora_rank", 4, "--lora_target_modules", TARGETS,
            "--max_steps", 4, "--save_steps", 2]  # fmt: skip


@pytest.fixture(scope="module")
def off(flags, heads) -> Path:
    output = heads.parents[1] / "off"
    must_train(*flags, *OFF, "--heads_checkpoint", heads, "--output_path", output)
    return output


def blocks(folder: Path) -> set[int]:
    return {int(re.match(r"blocks\.(\d+)", name)[1]) for name in load_file(folder / LORA_FILE)}


def test_only_blocks_up_to_the_last_tap_get_lora_and_all_of_it_trains(off):
    assert blocks(off / "final") == set(range(LAST + 1))
    assert read_lora_config(read_checkpoint(off / "final")).last_block == LAST
    before, after = load_file(off / "step-2" / LORA_FILE), load_file(off / "final" / LORA_FILE)
    assert all(not torch.equal(before[name], after[name]) for name in after)


def test_evaluation_and_generation_load_it(off, tiny_wan):
    found, backbone = read_checkpoint(off / "final"), Wan.in_folder(tiny_wan)
    text_dim = backbone.arguments["dit"]["text_dim"]
    generator = torch.Generator().manual_seed(0)
    latents, context = (torch.randn(shape, generator=generator) for shape in ((1, 48, 2, 4, 4), (1, 512, text_dim)))
    predictions = []
    for apply in (lambda pipe: load_model(found, pipe.dit, "cpu"), lambda pipe: load_fused(found, pipe)):
        model = apply(backbone.load_pipeline(("dit",), torch.float32, "cpu"))
        predictions.append(model(latents, latents[:, :, :1], context, latents, torch.tensor([0.5])))
    torch.testing.assert_close(predictions[0]["motion"], predictions[1]["motion"], rtol=1e-3, atol=1e-4)


def test_it_resumes_to_the_same_weights(flags, heads, off, tmp_path):
    (tmp_path / "out").mkdir()
    subprocess.run(["cp", "-r", off / "step-2", off / "log.jsonl", tmp_path / "out"], check=True)
    must_train(*flags, *OFF, "--heads_checkpoint", heads, "--output_path", tmp_path / "out", "--resume", "auto")
    ours, theirs = weights(tmp_path / "out/final"), weights(off / "final")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "--flow_loss_weight was 0" in refused(
        *flags, "--heads_checkpoint", heads, "--output_path", tmp_path / "out", "--resume", "auto"
    )


def test_a_run_with_the_flow_loss_starts_from_it_with_lora_everywhere(flags, off, tiny_wan, tmp_path):
    """And the other way round is refused: LoRA that was trained would be lost."""
    must_train(*flags, "--heads_checkpoint", off / "final", "--output_path", tmp_path / "on")
    names = {name.partition(".lora")[0] for name in load_file(tmp_path / "on/final" / LORA_FILE)}
    assert {"blocks.9.self_attn.q", "head.head"} <= names
    assert "--flow_loss_weight above 0" in refused(
        *flags, *OFF, "--heads_checkpoint", tmp_path / "on/final", "--output_path", tmp_path / "back"
    )


def test_adapters_behind_the_block_stay_as_they_are_when_the_others_are_loaded(small_dit):
    add_lora(small_dit, 4, ("q",))
    before = lora_state_dict(small_dit)
    given = {name: torch.ones_like(value) for name, value in before.items() if int(name.split(".")[1]) <= 2}
    load_lora(small_dit, given, "lora.safetensors", last_block=2)
    after = lora_state_dict(small_dit)
    assert all(after[name].eq(1).all() for name in given)
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - given.keys())
