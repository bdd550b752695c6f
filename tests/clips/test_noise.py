"""Noise levels: the library's grid, coverage by strata, and independence of everything but seed and position."""

import numpy as np
import pytest
import torch
from diffsynth.diffusion import FlowMatchScheduler

from motion_depth.clips.noise import LOW_NOISE, STRATA, NoiseMixture, clip_frames, clip_noise, clip_sigma, noise_bin


def test_shifted_part_is_the_librarys_training_grid():
    scheduler = FlowMatchScheduler("Wan")
    scheduler.set_timesteps(1000, training=True)
    mixture = NoiseMixture(0, 0, 1)
    ours = [mixture.sigma((index + 0.5) / 1000) for index in range(1000)]
    np.testing.assert_allclose(ours, scheduler.sigmas.numpy(), rtol=1e-5)


def test_mixture_parts_have_their_share_and_range():
    mixture = NoiseMixture(1, 2, 1)
    sigmas = np.array([mixture.sigma(u) for u in np.linspace(0, 1, 4000, endpoint=False)])
    assert ((sigmas >= 0) & (sigmas <= 1)).all()
    uniform, low, shifted = sigmas[:1000], sigmas[1000:3000], sigmas[3000:]
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert low.max() < LOW_NOISE
    assert (shifted < 0.1).mean() == pytest.approx(0.022, abs=0.005)  # what makes the mixture necessary


def test_a_group_of_clips_covers_the_mixture():
    mixture = NoiseMixture(1, 0, 0)
    for group in range(20):
        sigmas = sorted(clip_sigma(mixture, 3, group * STRATA + member) for member in range(STRATA))
        assert [int(sigma * STRATA) for sigma in sigmas] == list(range(STRATA))
    orders = {tuple(np.argsort([clip_sigma(mixture, 3, g * STRATA + m) for m in range(STRATA)])) for g in range(20)}
    assert len(orders) > 10


def test_noise_depends_on_seed_and_position_only():
    first = clip_noise((4, 3, 2, 2), 5, 10)
    torch.manual_seed(0)
    np.random.default_rng(0).random()
    assert torch.equal(first, clip_noise((4, 3, 2, 2), 5, 10))
    assert not torch.equal(first, clip_noise((4, 3, 2, 2), 5, 11))
    assert not torch.equal(first, clip_noise((4, 3, 2, 2), 6, 10))
    many = clip_noise((64, 64, 16), 0, 0)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_bins_name_their_range():
    assert [noise_bin(s) for s in (0.0, 0.0999, 0.1, 0.5, 0.95, 1.0)] == [
        "0-0.1",
        "0-0.1",
        "0.1-0.3",
        "0.5-0.7",
        "0.9-1",
        "0.9-1",
    ]


@pytest.mark.parametrize("text", ["1,1", "a,b,c", "0,0,0", "-1,1,1", "", "1e400,1,1", "1,inf,1", "1,1,nan"])
def test_bad_mixtures_name_the_flag(text):
    with pytest.raises(ValueError, match="--noise_mixture"):
        NoiseMixture.parse(text)


def test_the_frames_of_a_step_are_distinct_and_come_from_the_whole_clip():
    chosen = [clip_frames(2, 5, seed=3, position=position) for position in range(200)]
    assert all(one[0] < one[1] for one in chosen)
    assert torch.stack(chosen).unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(clip_frames(2, 5, seed=3, position=7), chosen[7])
