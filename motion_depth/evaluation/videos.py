"""Scores of generated videos against what truly happened after the same first frame, beside trivial baselines.

Axes: t frame, h w pixel. A table has a row for each frame of each video of a scene: sums, so that they can be pooled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas
import torch
from torch import Tensor

from motion_depth.clips.clip import MotionDepthClip
from motion_depth.readouts.motion import is_moving

CHANGED = 40  # of 255, in any channel: by more than this a pixel that has changed since frame 0 differs from it
MOSTLY = 0.5  # share of a kind's training scenes above which their mean says that a pixel changes
GENERATED, OTHER_PROMPT, FROZEN = "generated", "other_prompt", "frozen"
RECONSTRUCTION, TRAINING_MEAN = "reconstruction", "training_mean"  # the latter has no colours
# What foresees without the model, or without being told what happens.
BASELINES = (FROZEN, OTHER_PROMPT, TRAINING_MEAN)
KEYS = ("scene", "kind", "video")  # which rows of a table are whose


def other_prompts(kinds: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """For each scene a prompt of another kind: of the first scene that has one, from half of the list further on.

    (Neighbours in a sorted list resemble each other.) Raises ValueError for a scene for which there is none.
    """
    found, count = [], len(kinds)
    for place, (kind, prompt) in enumerate(zip(kinds, prompts, strict=True)):
        further = ((place + count // 2 + step) % count for step in range(count))
        other = next((prompts[at] for at in further if kinds[at] != kind and prompts[at] != prompt), None)
        if other is None:
            raise ValueError(f"found no scene of another kind than {kind} with another prompt than {prompt!r}")
        found.append(other)
    return found


def changed_region(frames: Tensor) -> Tensor:
    """Where a video differs from its own frame 0; (t, h, w, 3) uint8 to (t, h, w) bool, nowhere in frame 0.

    A video that is decoded from latents flickers where nothing happens, so the threshold has to be above that, and it
    must not be so high that things and shadows which truly change fall below it. Measured with a small VAE of 30 dB on
    21 scenes: of a video that stands still 1.8 % of the decoded pixels change by more than 15 of 255, 0.5 % by more
    than 20, 0.003 % by more than 40; and the region of the decoded true video overlaps that of the true one best at 25
    to 30 (0.79), hardly less at 40 (0.77), 0.63 at 10 and 0.64 at 80. 40 leaves a margin for a worse VAE. A video is
    compared with its own first frame, so that a lasting error of the VAE in what stands still is no change. Whether it
    holds for another VAE is measured with every evaluation: see `still_changed` and the reconstruction's overlap.
    """
    frames = frames.to(torch.int16)
    return ((frames - frames[:1]).abs() > CHANGED).any(dim=-1)


def mean_region(regions: Iterable[Tensor]) -> Tensor:
    """Where pixels have changed in more than MOSTLY of some scenes; regions and result (t, h, w) bool."""
    regions = list(regions)
    return sum(region.float() for region in regions) / len(regions) > MOSTLY


def score_region(region: Tensor, truth: Tensor) -> pandas.DataFrame:
    """By `frame` the pixels in `both` of two regions (t, h, w) bool, in `either`, and in the second, the `true` one."""
    rows = _sums({"both": region & truth, "either": region | truth, "true": truth})
    return rows.assign(frame=range(len(rows)))


def score_video(frames: Tensor, truth: MotionDepthClip) -> pandas.DataFrame:
    """A video of a scene by frame: `score_region` of what has changed, and errors of colours.

    Args:
        frames: (t, h, w, 3) uint8, of the clip's size.

    Returns:
        Beside the region `error`, the squared difference of colours (0 to 255, mean over channels), summed over the
        `pixels`; and the same of the truly moving ones (`is_moving`; none in frame 0), `moving_error`, `moving_pixels`.
    """
    error = (frames.float() - truth.frames.float()).square().mean(dim=-1)
    moving = is_moving(*truth.targets["motion"])
    errors = _sums({"error": error, "moving_error": error.where(moving, 0.0), "moving_pixels": moving})
    region = score_region(changed_region(frames), changed_region(truth.frames))
    return region.join(errors).assign(pixels=error[0].numel())


def score_scene(
    videos: Mapping[str, Tensor], truth: MotionDepthClip, kind: str, training: Tensor | None = None
) -> list[pandas.DataFrame]:
    """`score_video` of each of a scene's videos, in tables with the columns KEYS.

    Args:
        training: region (t, h, w) that the kind's training scenes change; it is scored as TRAINING_MEAN.
    """
    tables = {name: score_video(frames, truth) for name, frames in videos.items()}
    if training is not None:
        tables[TRAINING_MEAN] = score_region(training, changed_region(truth.frames))
    return [table.assign(scene=truth.scene, kind=kind, video=name) for name, table in tables.items()]


def _sums(values: Mapping[str, Tensor]) -> pandas.DataFrame:
    """(t, h, w) to t rows; in a type that counts all pixels."""
    return pandas.DataFrame(
        {name: value.sum(dim=(1, 2), dtype=torch.float64).numpy() for name, value in values.items()}
    )


def frozen(frames: Tensor) -> Tensor:
    """Frame 0 for as long as a video (t, h, w, 3) lasts."""
    return frames[:1].expand_as(frames).contiguous()


def psnr(error: float) -> float:
    """A mean squared error of colours (0 to 255) in dB: inf for 0, NaN for NaN (nothing was compared)."""
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def summarise_videos(tables: Sequence[pandas.DataFrame]) -> dict:
    """All tables of an evaluation, with the columns KEYS. The first frame is given, and counts nowhere.

    Returns:
        `psnr` and `moving_psnr`, by video: `frames`, a list from frame 1 on, and `all`, in dB of the mean squared error
        over all scenes, which one scene in which nothing moves does not make infinite. `overlap`, by kind and video:
        intersection over union of the changed regions, the mean over the kind's scenes; empty for kinds in which
        nothing truly changes. `mean_overlap`, by video, over kinds. `better`: the kinds whose generated videos overlap
        more than every one of BASELINES that there is. `per_scene`: `kind`, the share of pixels that truly `changed`,
        `overlap` and `psnr` by video.
    """
    rows = pandas.concat([table[table["frame"] > 0] for table in tables], ignore_index=True)
    shown = rows.dropna(subset="error").groupby("video", sort=False)
    scenes = {scene: _of_scene(part) for scene, part in rows.groupby("scene", sort=False)}
    kinds = dict.fromkeys(found["kind"] for found in scenes.values())
    overlap = {kind: _means(each["overlap"] for each in scenes.values() if each["kind"] == kind) for kind in kinds}
    return {
        "psnr": {video: _by_frame(part, "error", "pixels") for video, part in shown},
        "moving_psnr": {video: _by_frame(part, "moving_error", "moving_pixels") for video, part in shown},
        "overlap": overlap,
        "mean_overlap": _means(overlap.values()),
        "better": [kind for kind, found in overlap.items() if found and _is_better(found)],
        "per_scene": scenes,
    }


def _of_scene(rows: pandas.DataFrame) -> dict:
    sums = rows.groupby("video", sort=False)[["both", "either", "true", "error", "pixels"]].sum(min_count=1)
    own = sums.loc[GENERATED]
    return {
        "kind": rows["kind"].iloc[0],
        "changed": float(own["true"] / own["pixels"]),
        "overlap": (sums["both"] / sums["either"]).to_dict() if own["true"] else {},
        "psnr": (sums["error"] / sums["pixels"]).dropna().map(psnr).to_dict(),
    }


def _by_frame(rows: pandas.DataFrame, error: str, pixels: str) -> dict:
    sums = rows.groupby("frame")[[error, pixels]].sum()
    frames, total = sums[error] / sums[pixels], sums.sum()
    return {"frames": frames.map(psnr).to_list(), "all": psnr(total[error] / total[pixels])}


def _means(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each key's values, over the dicts that are not empty."""
    return pandas.DataFrame([each for each in found if each]).mean().to_dict()


def _is_better(overlap: Mapping[str, float]) -> bool:
    return all(overlap[GENERATED] > overlap[name] for name in BASELINES if name in overlap)
