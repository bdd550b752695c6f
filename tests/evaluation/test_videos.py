"""Scores of generated videos on videos of which they are known."""

import math

import pytest
import torch
from torch import Tensor

from motion_depth.clips.clip import MotionDepthClip
from motion_depth.clips.noise import clip_noise
from motion_depth.evaluation.scores import EncodedClip, flow_errors
from motion_depth.evaluation.video_tables import markdown
from motion_depth.evaluation.videos import (
    CHANGED,
    changed_region,
    frozen,
    mean_region,
    other_prompts,
    psnr,
    score_region,
    score_scene,
    score_video,
    summarise_videos,
)
from motion_depth.model.motion_depth import MotionDepthModel
from tests.support.quantities import FRAMES, HEIGHT, WIDTH, moving_square

GREY, BRIGHT = 60, 200


def square_frames(step: int = 4) -> Tensor:
    """The pictures of `moving_square`, or of one that moves otherwise."""
    frames = torch.full((FRAMES, HEIGHT, WIDTH, 3), GREY, dtype=torch.uint8)
    for frame in range(FRAMES):
        frames[frame, 12:24, 4 + step * frame : 16 + step * frame] = BRIGHT
    return frames


def clip(scene: str = "ball", frames: Tensor | None = None) -> MotionDepthClip:
    targets = moving_square()
    targets["motion"].valid[0] = False
    return MotionDepthClip(square_frames() if frames is None else frames, targets, torch.arange(FRAMES), scene)


# ---------------------------------------------------------------------------------------------- what has changed


def test_a_pixel_has_changed_if_one_channel_has_by_more_than_the_threshold():
    frames = torch.full((2, 1, 4, 3), 100, dtype=torch.uint8)
    for place, by in enumerate((CHANGED, CHANGED + 1, -CHANGED - 1)):
        frames[1, 0, place, place] = 100 + by
    assert changed_region(frames)[0].sum() == 0
    assert changed_region(frames)[1, 0].tolist() == [False, True, True, False]


def test_the_mean_region_is_what_more_than_half_of_the_scenes_change():
    regions = [torch.tensor(row) for row in ([True, True, False], [True, False, False], [True, True, True])]
    assert mean_region(iter(regions)).tolist() == [True, True, False]
    assert mean_region(regions[:2]).tolist() == [True, False, False]


def test_regions_are_counted_by_frame():
    one, other = torch.zeros(2, 2, 2, dtype=torch.bool), torch.zeros(2, 2, 2, dtype=torch.bool)
    one[1, 0], other[1, :, 0] = True, True
    rows = score_region(one, other)
    assert rows[["frame", "both", "either", "true"]].to_numpy().tolist() == [[0, 0, 0, 0], [1, 1, 3, 2]]


# ---------------------------------------------------------------------------------------------- colours


def test_psnr_of_known_errors():
    assert psnr(0) == math.inf
    assert psnr(255**2) == 0
    assert psnr(255**2 / 100) == pytest.approx(20)
    assert math.isnan(psnr(math.nan))


def test_a_video_is_scored_on_all_and_on_the_truly_moving_pixels():
    truth = clip()
    equal = score_video(truth.frames, truth)
    assert (equal["error"] == 0).all()
    assert equal["moving_pixels"].tolist() == [0, *[144] * (FRAMES - 1)]
    rows = score_video(frozen(truth.frames), truth)
    overlapping = [144 - 12 * min(12, 4 * frame) for frame in range(FRAMES)]  # where the square still is
    wrong = [(144 - each) * (BRIGHT - GREY) ** 2 for each in overlapping]
    assert rows["moving_error"].tolist() == [0, *wrong[1:]]
    assert rows["error"].tolist() == [2 * each for each in wrong]  # and where it has been
    assert (rows["pixels"] == HEIGHT * WIDTH).all()


# ---------------------------------------------------------------------------------------------- summary


def scored(scene: str, kind: str, step: int, other_step: int, frames: Tensor | None = None, **more) -> list:
    """A generated square, and one that is told something else."""
    truth = clip(scene, frames)
    videos = {"generated": square_frames(step), "other_prompt": square_frames(other_step),
              "frozen": frozen(truth.frames), "reconstruction": truth.frames}  # fmt: skip
    return score_scene(videos, truth, kind, **more)


def test_the_summary_of_perfect_partial_and_worse_forecasts():
    still = frozen(square_frames())
    found = summarise_videos([
        *scored("a", "perfect", step=4, other_step=0),
        *scored("b", "half", step=2, other_step=4),
        *scored("c", "half", step=0, other_step=4),
        *scored("d", "still", step=4, other_step=4, frames=still),
    ])  # fmt: skip
    assert found["overlap"]["perfect"] == {"generated": 1, "other_prompt": 0, "frozen": 0, "reconstruction": 1}
    half = found["per_scene"]["b"]["overlap"]["generated"]
    assert 0.3 < half < 0.7
    assert found["overlap"]["half"]["generated"] == pytest.approx(half / 2)  # the mean over scenes
    assert found["overlap"]["still"] == found["per_scene"]["d"]["overlap"] == {}
    assert found["per_scene"]["d"]["changed"] == 0
    assert found["mean_overlap"]["generated"] == pytest.approx((1 + half / 2) / 2)
    assert found["better"] == ["perfect"]
    assert found["psnr"]["reconstruction"] == {"frames": [math.inf] * (FRAMES - 1), "all": math.inf}
    assert found["per_scene"]["a"]["psnr"]["generated"] == math.inf > found["psnr"]["generated"]["all"]


def test_better_is_better_than_the_training_scenes_too():
    training = changed_region(square_frames())
    (kind,) = summarise_videos(scored("a", "ball", 2, 0))["better"]
    assert kind == "ball"
    found = summarise_videos(scored("a", "ball", 2, 0, training=training))
    assert found["better"] == []
    assert found["overlap"]["ball"]["training_mean"] == 1
    assert "training_mean" not in found["psnr"]  # it has no colours
    assert found["psnr"]["generated"]["all"] > 0


def test_the_tables_are_markdown_with_every_video_and_kind():
    found = summarise_videos([
        *scored("a", "ball", 2, 0, training=changed_region(square_frames())),
        *scored("b", "duck", 4, 4, frames=frozen(square_frames())),
    ])  # fmt: skip
    shares = {"1.0": {"model": 0.25, "other_prompt": 0.5, "trivial": 1, "random": 2.8}}
    measured = {"flow": {"variance": 0.75, "share": shares}, "still_changed": 0.001, "training_scenes": {"ball": 40}}
    text = markdown(found | measured)
    assert "| 1.0 | 0.250 | 0.500 | 1.000 | 2.800 |" in text
    assert "| truth through the VAE | equal | equal |" in text
    assert "The training scenes are at least 40 of each kind. In duck nothing changes." in text
    assert "0.10% of the pixels" in text
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("|")}
    assert rows["| ball"].endswith("| no |")
    assert rows["| mean"].endswith("| 0 of 1 |")
    for table in text.split("\n\n"):
        lines = table.splitlines()
        assert len({line.count("|") for line in lines if line.startswith("|")}) <= 1


# ---------------------------------------------------------------------------------------------- prompts and velocity


def test_the_other_prompt_is_of_another_kind_from_half_of_the_list_on():
    kinds, prompts = ["ball", "ball", "duck", "ramp"], ["A.", "B.", "C.", "D."]
    assert other_prompts(kinds, prompts) == ["C.", "D.", "A.", "B."]
    assert other_prompts(["ball", "ball", "ball", "duck"], ["A.", "B.", "C.", "D."]) == ["D.", "D.", "D.", "B."]
    assert other_prompts(["ball", "duck", "ramp"], ["A.", "A.", "B."]) == ["B.", "B.", "A."]
    with pytest.raises(ValueError, match=r"no scene of another kind than ball with another prompt than 'A\.'"):
        other_prompts(["ball", "duck"], ["A.", "A."])


def test_flow_errors_are_those_of_training_without_their_weight(small_dit, small_heads):
    generator = torch.Generator().manual_seed(0)
    latents, context = torch.randn(1, 48, 3, 4, 6, generator=generator), torch.randn(1, 7, 16, generator=generator)
    found = flow_errors(small_dit, EncodedClip(latents, latents[:, :, :1], 5), context, (0.25, 0.75), seed=3)
    assert list(found) == [0.25, 0.75]
    noise = clip_noise(tuple(latents.shape[1:]), 3, 5)[None]
    model = MotionDepthModel(small_dit, small_heads, train_dit=False)
    for sigma, error in found.items():
        level = torch.tensor([sigma])
        loss = model(latents, latents[:, :, :1], context, noise, level, with_flow=True)["flow_loss"]
        assert error == pytest.approx(float(loss / small_dit.flow_weight(level)), rel=1e-5)
    assert flow_errors(small_dit, EncodedClip(latents, latents[:, :, :1], 6), context, (0.75,), 3)[0.75] != found[0.75]
