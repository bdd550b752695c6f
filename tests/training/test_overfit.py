"""Stage 1 on one clip: the heads must be able to learn it."""

import copy

import pytest
import torch

from motion_depth.clips.batch import pack_targets
from motion_depth.clips.dataset import create_motion_data_operator
from motion_depth.clips.noise import clip_noise
from motion_depth.evaluation.scores import metrics_of, score_frames
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, example_features, tap_blocks
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.wan import Wan, WanEncoder
from motion_depth.readouts.losses import head_losses
from motion_depth.readouts.statistics import measure, neutral
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


def test_a_bfloat16_copy_of_the_run_stalls():
    """Why heads and LoRA are float32 under bf16 autocast: at lr 1e-4 most updates are less than bfloat16 can add."""
    torch.manual_seed(0)
    config = HeadConfig(dit_dim=64, taps=(0, 1), kind="linear")
    trained = MotionDepthHeads(config, neutral())
    torch.nn.init.normal_(trained.motion.out.weight, std=0.2)  # as after some training
    features = example_features(config, (2, 2, 2))
    goal = copy.deepcopy(trained)  # a hundredth away in every weight
    with torch.no_grad():
        goal.motion.out.weight.add_(0.01 * torch.randn_like(goal.motion.out.weight).sign())
        wanted = goal.motion(features)

    def train(heads: MotionDepthHeads) -> tuple[float, float]:
        """Share of the weights that moved, and the last loss as a share of the first."""
        before = [parameter.detach().float().clone() for parameter in heads.motion.parameters()]
        optimizer = torch.optim.AdamW(heads.motion.parameters(), lr=1e-4, weight_decay=0.0)
        losses = []
        for _ in range(60):
            with torch.autocast("cpu", torch.bfloat16):
                predicted = heads.motion(features)
            losses.append((predicted.float() - wanted).square().mean())
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        pairs = zip(before, heads.motion.parameters(), strict=True)
        moved = torch.cat([(one != other.detach().float()).flatten() for one, other in pairs])
        return float(moved.float().mean()), float(losses[-1].detach() / losses[0].detach())

    moved, left = train(copy.deepcopy(trained))
    moved_bf16, left_bf16 = train(copy.deepcopy(trained).to(torch.bfloat16))
    assert moved > 0.95
    assert left < 0.05
    assert moved_bf16 < 0.5
    assert left_bf16 > 0.25
