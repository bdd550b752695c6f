"""The trained small model that the project ships: it loads in the library's own pipeline and does what it did."""

import json
from pathlib import Path

import pytest
import torch
from diffsynth.core import ModelConfig
from diffsynth.pipelines.wan_video import WanVideoPipeline

from motion_depth.tiny import model as tiny
from tools.demo.fixed_clip import errors_on_fixed_clip

FOLDER = Path(__file__).resolve().parents[2] / "data/small_wan"


def load() -> WanVideoPipeline:
    tiny.register_model_configs(FOLDER)
    files = (tiny.DIT_FILE, tiny.TEXT_ENCODER_FILE, tiny.VAE_FILE)
    return WanVideoPipeline.from_pretrained(
        torch_dtype=torch.float32,
        device="cpu",
        model_configs=[ModelConfig(path=str(FOLDER / name)) for name in files],
        tokenizer_config=ModelConfig(path=str(FOLDER / tiny.TOKENIZER_FOLDER)),
        redirect_common_files=False,
    )


def test_it_is_at_most_20_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 20e6


def test_it_has_the_error_on_a_fixed_clip_that_its_card_records():
    """Within what processors round differently; other weights, or code that reads them otherwise, are far off."""
    recorded = json.loads((FOLDER / "card.json").read_text())["fixed_clip"]
    found = errors_on_fixed_clip(load())
    assert found == pytest.approx(recorded, rel=0.01)
    assert max(recorded.values()) < 0.5  # random weights: 2.5
