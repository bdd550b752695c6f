"""The memory that a run is refused for: element counts in the run's types, and what a step keeps."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from motion_depth.checkpoints.models import LoraShape
from motion_depth.model.backbone import Backbone
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, tap_blocks
from motion_depth.model.wan import Wan
from motion_depth.settings import Settings
from motion_depth.tiny.model import DIT_FILE
from motion_depth.training.architecture import Architecture, planned_model
from motion_depth.training.memory import LiveBytes
from motion_depth.training.preflight import check_memory, check_resources, needed_memory
from motion_depth.training.start import Start
from tests.support.settings import make_settings
from tools.benchmarks.models import DIT_5B


def settings(**changes) -> Settings:
    given = {"num_frames": 5, "height": 64, "width": 64, "cache_path": Path("cache"), "save_steps": 0}
    return make_settings(**given | changes)


def plan_of(heads: HeadConfig, settings: Settings) -> Architecture:
    return Architecture(heads, LoraShape(4, ("q", "k", "v", "o")) if settings.stage == 2 else None)


def needed(
    backbone: Backbone, shares: int = 1, dim: int = 128, blocks: int = 10, size: str = "small", **changes
) -> int:
    args = settings(**changes)
    config = HeadConfig(dim, tap_blocks(blocks), **HEAD_SIZES[size])
    return needed_memory(args, planned_model(args, backbone, plan_of(config, args)), backbone, shares)


@pytest.fixture
def backbone(tiny_wan) -> Wan:
    return Wan.in_folder(tiny_wan)


@pytest.fixture
def float32_backbone(tiny_wan, tmp_path) -> Wan:
    """The same weights in float32 on the disk, as the DiT of the 5B release."""
    for path in tiny_wan.iterdir():
        if path.name != DIT_FILE:
            (tmp_path / path.name).symlink_to(path)
    save_file({name: value.float() for name, value in load_file(tiny_wan / DIT_FILE).items()}, tmp_path / DIT_FILE)
    return Wan.in_folder(tmp_path)


def bytes_of(paths: list[Path], size: int) -> int:
    return size * sum(value.numel() for path in paths for value in load_file(path).values())


@pytest.mark.parametrize("changes", [{}, {"compile": True}, {"stage": 2}, {"cache_path": None}])
def test_bytes_on_the_disk_are_not_bytes_in_memory(backbone, float32_backbone, changes):
    assert needed(backbone, **changes) == needed(float32_backbone, **changes)


def test_the_5b_fits_16_gib_in_stage_1():
    """20 GB of float32 on the disk, and 10.6 GB of bfloat16, heads and their optimizer in memory."""
    release = Wan.__new__(Wan)
    release.arguments, release.count_numbers = {"dit": DIT_5B}, lambda part: 0
    found = needed(release, dim=DIT_5B["dim"], blocks=DIT_5B["num_layers"], size="full", compile=True)
    assert found == pytest.approx(10.6e9, rel=0.01)
    assert "10.6 GB needed (counted), 16.0 GB free" in check_memory(16 * 10**9, found)


def test_precision_counts(backbone):
    dit = bytes_of(backbone.files.dit, 2)
    assert needed(backbone, compile=True, mixed_precision="no") - needed(backbone, compile=True) == dit


def test_what_a_step_keeps_counts(backbone):
    weights, step = needed(backbone, compile=True), needed(backbone)
    assert weights < step
    assert needed(backbone, batch_size=4) > step
    assert needed(backbone, num_frames=9) > step
    assert needed(backbone, height=128) > step
    assert needed(backbone, height=256, width=256, loss_frames=1) < needed(backbone, height=256, width=256)
    stage2 = [needed(backbone, stage=2, gradient_checkpointing=how) for how in ("every", "alternate", "none")]
    assert step < stage2[0] < stage2[1] < stage2[2]


def test_without_a_cache_the_vae_stays_and_the_text_encoder_comes_before(backbone, monkeypatch):
    vae, text_encoder = bytes_of(backbone.files.vae, 2), bytes_of(backbone.files.text_encoder, 2)
    assert needed(backbone, cache_path=None) == needed(backbone) + vae
    assert needed(backbone, cache_only=True) == vae
    counts = {"vae": vae // 2, "text_encoder": 10**10}
    monkeypatch.setattr(backbone, "count_numbers", counts.get)
    assert needed(backbone, cache_path=None) == 2 * 10**10 > text_encoder
    assert needed(backbone) < 10**10


def test_processes_that_share_the_blocks_need_less(backbone):
    whole, half = (needed(backbone, shares=shares, stage=2, compile=True) for shares in (1, 2))
    dit = load_file(backbone.files.dit[0])
    blocks = sum(2 * value.numel() for name, value in dit.items() if name.startswith("blocks."))
    assert whole - half == blocks // 2


def test_a_gpu_with_too_little_memory_is_refused_before_work(backbone, tmp_path, monkeypatch):
    accelerator, said = Accelerator(cpu=True), []
    gpu = SimpleNamespace(
        is_main_process=True, num_processes=1, device=torch.device("cuda"), print=said.append, state=accelerator.state
    )
    args, config = settings(output_path=tmp_path / "out"), HeadConfig(128, tap_blocks(10), **HEAD_SIZES["small"])
    for free in (10**9, 10**6):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**9))
        if free == 10**9:
            check_resources(gpu, args, backbone, Architecture(config, None), Start(total=10), False)
            assert said[0].startswith("GPU memory: 0.0 GB needed (counted), 1.0 GB free")
        else:
            with pytest.raises(
                ValueError, match=r"GPU memory: 0\.\d GB needed .* 0\.0 GB free; free the GPU, or lower"
            ):
                check_resources(gpu, args, backbone, Architecture(config, None), Start(total=10), False)


def test_counted_memory_is_that_of_tensors_that_live_together():
    with LiveBytes() as live:
        first = torch.zeros(1000)
        second = first * 2 + 1  # the product goes when the sum is there
        view = second[:10]
        assert live.now == 2 * 4000
        assert live.peak == 3 * 4000
        del first
        assert live.now == 4000
        del second
        assert live.now == 4000  # the view holds it
        del view
        assert live.now == 0
