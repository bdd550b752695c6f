"""Stage 1 on one clip: the heads must be able to learn it."""

import pytest
import torch

from motion_depth.assemble import build_heads
from motion_depth.batch import pack_targets, stack_targets
from motion_depth.data import create_motion_data_operator
from motion_depth.evaluation import metrics_of, score_frames
from motion_depth.heads import HEAD_SIZES, HeadConfig, tap_blocks
from motion_depth.losses import head_losses
from motion_depth.noise import clip_noise
from motion_depth.statistics import measure
from motion_depth.wan import ClipEncoder, MotionDepthModel, load_pipeline, pad_contexts
from motion_depth.weights import WanFiles, check_weights


@pytest.mark.parametrize("kind", ["dense"])
def test_heads_overfit_one_clip(demo_scenes, tiny_wan, kind):
    torch.manual_seed(0)
    clip = create_motion_data_operator(demo_scenes, 96, 96, 9, frame_stride=1)(("test_ball_collide/env_0/0/0", 2))
    files = WanFiles.in_folder(tiny_wan)
    check_weights(files)
    pipe = load_pipeline(files, ("dit", "text_encoder", "vae"), torch.float32, "cpu")
    encoder = ClipEncoder(pipe)
    latents, first = encoder.frames(clip.frames[None])
    context = pad_contexts([encoder.prompt("A ball hits a ball.")])
    targets = stack_targets([pack_targets(clip)]).to("cpu")
    statistics = measure([pack_targets(clip)])
    config = HeadConfig(pipe.dit.dim, tap_blocks(len(pipe.dit.blocks)), kind, **HEAD_SIZES["small"])
    model = MotionDepthModel(pipe.dit, build_heads(config, statistics), train_dit=False)
    optimizer = torch.optim.AdamW(model.heads.parameters(), lr=1e-3, weight_decay=0.0)
    sigma = torch.tensor([0.02])

    def forward(step: int) -> dict[str, torch.Tensor]:
        return model(latents, first, context, clip_noise(tuple(latents.shape), 0, step), sigma)

    for step in range(150):
        losses = head_losses(forward(step), targets, statistics.scales)
        optimizer.zero_grad()
        (losses["motion_loss"] + losses["depth_loss"]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.heads.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        median_depth = torch.full(targets.depth.shape[-2:], statistics.log_depth).exp()
        rows = score_frames(forward(10_000), targets, median_depth, {"scene": "", "window": 0, "sigma": 0.02})
    metrics = metrics_of(rows)
    assert metrics["moving_epe"] < 0.3 * metrics["moving_epe_baseline"]
    assert metrics["abs_rel"] < 0.3 * metrics["abs_rel_baseline"]
