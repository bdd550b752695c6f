"""Scoring a model on clips at fixed noise levels; used by tools/evaluate.py and by validation while training.

Axes: b clip (always 1 here), t frame, h w pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas
import torch
from torch import Tensor

from motion_depth.clips.batch import Sample, make_batch
from motion_depth.clips.noise import clip_noise
from motion_depth.model.backbone import Dit
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.readouts.metrics import baseline_sums, finish, prediction_sums
from motion_depth.readouts.targets import Targets

NOISE_LEVELS = (0.02, 0.25, 0.5, 0.75, 1.0)
KEYS = ["scene", "window", "sigma", "frame"]


@torch.no_grad()
def read_clip(
    model: MotionDepthModel,
    sample: Sample,
    context: Tensor,
    levels: Sequence[float],
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    with_flow: bool = False,
) -> Iterator[tuple[float, dict[str, Tensor], Targets]]:
    """One encoded clip at chosen noise levels: the level, the model's predictions (b = 1), and the targets.

    The noise depends on the seed and the sample's position only, so every noise level mixes in the same noise.

    Args:
        context: (1, l, c).
        dtype: that the model computes in; the heads do under autocast.
        with_flow: whether the flow-matching loss is wanted as well.
    """
    for sigma in levels:
        batch = make_batch([sample], context, sigma, seed, device, dtype)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype == torch.bfloat16):
            predictions = model(batch.latents, batch.first, batch.context, batch.noise, batch.sigma, with_flow)
        yield sigma, predictions, batch.targets


class EncodedClip(NamedTuple):
    """What of a clip a DiT's velocity depends on, but for the prompt.

    Attributes:
        latents: (1, c, f, h, w).
        first: (1, c, 1, h, w), latents of the first frame alone.
        position: which noise; that of `read_clip`.
    """

    latents: Tensor
    first: Tensor
    position: int


@torch.no_grad()
def flow_errors(dit: Dit, clip: EncodedClip, context: Tensor, levels: Sequence[float], seed: int) -> dict[float, float]:
    """By noise level the mean squared error of the velocity (`flow_matching_loss`), whatever its weight in training.

    Args:
        context: (1, l, c).
    """
    latents, first, position = clip
    noise = clip_noise(tuple(latents.shape[1:]), seed, position)[None].to(latents)
    model = MotionDepthModel(dit, None, train_dit=False)
    noised = ((sigma, torch.tensor([sigma], device=latents.device)) for sigma in levels)
    return {
        sigma: float(model(latents, first, context, noise, level, with_flow=True)["flow_error"])
        for sigma, level in noised
    }


def score_frames(
    predictions: dict[str, Tensor], targets: Targets, maps: Mapping[str, Tensor], keys: Mapping[str, object]
) -> pandas.DataFrame:
    """Sums of one clip, a row per frame: the model's, and each baseline's as `<baseline>/<sum>`.

    Args:
        maps: of the training set's statistics, at the clip's size.
        keys: values of `scene`, `window` and `sigma`.
    """
    sums = prediction_sums(predictions, targets)
    for name, values in baseline_sums(targets, maps).items():
        sums |= {f"{name}/{key}": value for key, value in values.items()}
    rows = pandas.DataFrame({name: value[0].cpu().numpy() for name, value in sums.items()})
    return rows.assign(frame=range(len(rows)), **keys)


def metrics_of(rows: pandas.DataFrame) -> dict[str, float | None]:
    """Metrics over some rows of `score_frames`, the baselines' as `<metric>_<baseline>`; see `metrics.finish`."""
    sums = rows.drop(columns=KEYS).sum(skipna=False)
    metrics = finish({name: value for name, value in sums.items() if "/" not in name})
    for baseline in dict.fromkeys(name.split("/")[0] for name in sums.index if "/" in name):
        own = {name.split("/")[1]: value for name, value in sums.items() if name.startswith(f"{baseline}/")}
        metrics |= {f"{name}_{baseline}": value for name, value in finish(own).items()}
    return metrics


def not_finite(levels: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """The metrics that are inf or NaN, by noise level, such as "abs_rel at noise 0.5"."""
    return [
        f"{name} at noise {sigma}"
        for sigma, metrics in levels.items()
        for name, value in metrics.items()
        if value is not None and not math.isfinite(value)
    ]


def sigma_name(sigma: float) -> str:
    """How a noise level is written in files and logs: "0.02", "0.5", "1.0"."""
    return str(float(sigma))


def summarise(clips: Iterable[pandas.DataFrame]) -> dict:
    """All rows of an evaluation as nested metrics.

    Returns:
        `overall[sigma]`, `per_scene[scene][sigma]` and `per_frame[sigma]` (a list by frame of the clip), each a dict of
        metrics (`metrics_of`).
    """
    rows = pandas.concat(list(clips), ignore_index=True)
    return {
        "overall": {sigma_name(sigma): metrics_of(part) for sigma, part in rows.groupby("sigma")},
        "per_scene": {
            scene: {sigma_name(sigma): metrics_of(part) for sigma, part in of_scene.groupby("sigma")}
            for scene, of_scene in rows.groupby("scene")
        },
        "per_frame": {
            sigma_name(sigma): [metrics_of(part) for _, part in of_sigma.groupby("frame")]
            for sigma, of_sigma in rows.groupby("sigma")
        },
    }
