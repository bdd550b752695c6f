"""Stage 1 on one clip: the heads must be able to learn it."""

import pytest
import torch

from motion_depth.clips.batch import pack_targets
from motion_depth.clips.dataset import create_motion_data_operator
from motion_depth.clips.noise import clip_noise
from motion_depth.evaluation.scores import metrics_of, score_frames
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, tap_blocks
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.wan import Wan, WanEncoder
from motion_depth.readouts.losses import head_losses
from motion_depth.readouts.statistics import measure
from motion_depth.readouts.targets import Targets


@pytest.mark.parametrize("kind", ["dense"])
def test_heads_overfit_one_clip(demo_scenes, tiny_wan, kind):
    torch.manual_seed(0)
    clip = create_motion_data_operator(demo_scenes, 96, 96, 9, frame_stride=1)(("test_ball_collide/env_0/0/0", 2))
    pipe = Wan.in_folder(tiny_wan).load_pipeline(("dit", "text_encoder", "vae"), torch.float32, "cpu")
    encoder = WanEncoder(pipe)
    latents, first = encoder.frames(clip.frames[None])
    context = encoder.prompt("A ball hits a ball.")[None]
    targets = Targets.stack([pack_targets(clip)]).to("cpu")
    statistics = measure([pack_targets(clip)])
    config = HeadConfig(pipe.dit.dim, tap_blocks(len(pipe.dit.blocks)), kind, **HEAD_SIZES["small"])
    model = MotionDepthModel(pipe.dit, MotionDepthHeads(config, statistics), train_dit=False)
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
        median_depth = torch.full((96, 96), statistics.numbers["log_depth"]).exp()
        keys = {"scene": "", "window": 0, "sigma": 0.02}
        rows = score_frames(forward(10_000), targets, {"mean_depth": median_depth}, keys)
    metrics = metrics_of(rows)
    assert metrics["moving_epe"] < 0.3 * metrics["moving_epe_baseline"]
    assert metrics["abs_rel"] < 0.3 * metrics["abs_rel_baseline"]
