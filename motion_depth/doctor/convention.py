"""Which motion convention the evidence of one scene, or of many, speaks for, and how surely.

First units, direction and y axis, from the baseline over which the best reading explains most; then the frame offset,
which only shows from one frame to the next; last, whether the vectors lead to the next frame: forward flow, which
differs from negated backward flow only where motion changes. A share *explained* is the part of the colour error of no
motion that following the vectors takes away: 1 would be perfect, 0 is no better than no motion, below 0 is worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.photometry import CANDIDATES, OFFSETS, PER_OFFSET, Evidence

MIN_EXPLAINED = 0.05  # the best reading must explain this much, or light changes more than motion does
LONGER_BASELINE = 0.05  # a longer baseline must explain this much more than one frame
# A reading is ruled out if it explains less than the best by this share, in nearly every frame (in units of the
# standard error over frames), or by far.
LESS, SURE, FAR_LESS = 0.01, 2.5, 0.1
# A frame offset other than 0 must be better than 0 by this share, in nearly every frame, or clearly.
OFFSET_BETTER, OFFSET_CLEARLY_BETTER = 0.015, 0.025
# Forward flow fits better to the next frame by this share of the errors both ways, in nearly every frame.
FITS_BETTER, SURE_NEXT = 0.01, 2.0

UNITS = {"pixels": "pixels", "normalized": "shares of the picture's size", "ndc": "shares of half the picture's size"}
FILES = {0: "its frame", 1: "the next frame", -1: "the frame before"}


@dataclass(frozen=True)
class Verdict:
    """What is known about the convention.

    convention: the one that fits best, the documented one where it cannot be told from the best; None: cannot tell.
    fitting: all that are not ruled out, `convention` among them; empty if it is None.
    explained: share that `convention` explains. next_best: the most that one of those ruled out explains.
    gains: share that each of CANDIDATES explains. scenes: how many have evidence. frames: how many they were judged on.
    forward_flow: the vectors lead to the next frame; `convention` then only stands in for it. explained_next: share of
    the change to the next frame that they explain, 0 if they do not lead there.
    """

    convention: MotionConvention | None = None
    fitting: tuple[MotionConvention, ...] = ()
    explained: float = 0.0
    next_best: float = 0.0
    gains: tuple[float, ...] = (0.0,) * len(CANDIDATES)
    scenes: int = 0
    frames: int = 0
    forward_flow: bool = False
    explained_next: float = 0.0

    @property
    def unknown(self) -> tuple[str, ...]:
        """Fields in which the fitting conventions differ."""
        fields = asdict(CANDIDATES[0])
        return tuple(name for name in fields if len({getattr(each, name) for each in self.fitting}) > 1)


def describe(convention: MotionConvention) -> str:
    """In words: "backward motion in pixels, y down, in the file of its frame"."""
    units, file = UNITS[convention.units], FILES[convention.frame_offset]
    return f"{convention.direction} motion in {units}, y {convention.y_axis}, in the file of {file}"


def flags(convention: MotionConvention, given: MotionConvention | None = None) -> str:
    """The flags of a convention, those with the documented value left out; "" for the documented one.

    given: the convention that is set now; where it has another value, the flag is named all the same.
    """
    documented, now = asdict(MotionConvention()), asdict(given or convention)
    wanted = asdict(convention).items()
    return " ".join(f"--motion_{name} {it}" for name, it in wanted if it != documented[name] or it != now[name])


def flags_or_all(convention: MotionConvention) -> str:
    """The flags of a convention; all of them for the documented one."""
    return flags(convention) or " ".join(f"--motion_{name} {it}" for name, it in asdict(convention).items())


def judge(scenes: Sequence[Sequence[Evidence]]) -> Verdict:
    """The verdict on scenes, each with the evidence of some of its frames; every scene counts alike."""
    scenes = [frames for frames in scenes if frames]
    if not scenes:
        return Verdict()
    shares = [_scene_shares(frames) for frames in scenes]
    chosen = np.concatenate([each[_baseline(each)] for each in shares]) / len(shares)  # frames, candidates
    # Where nothing shows from one frame to the next, what little differs between the offsets is chance.
    telling = [i for i, each in enumerate(shares) if each[0].sum(axis=0).max() > MIN_EXPLAINED]
    adjacent = np.concatenate([shares[i][0] for i in telling] or [np.zeros((1, len(CANDIDATES)))])
    adjacent = adjacent / max(len(telling), 1)
    gains = chosen.sum(axis=0)
    kind = int(np.argmax(gains.reshape(len(OFFSETS), PER_OFFSET).max(axis=0)))
    order = [PER_OFFSET * o + kind for o in range(len(OFFSETS))]
    best = order[_offset(adjacent[:, order])]
    explained_next = _explained_next([scenes[i] for i in telling], kind, adjacent[:, best].sum())
    best = best if explained_next is None else kind
    common = {"gains": tuple(gains.tolist()), "scenes": len(shares), "frames": sum(len(each[0]) for each in shares)}
    if gains[best] < MIN_EXPLAINED:
        return Verdict(explained=float(gains[best]), **common)
    out = [_ruled_out(adjacent if c in order else chosen, c, best) for c in range(len(CANDIDATES))]
    if explained_next is not None:
        out = [is_out or each.frame_offset != 0 for each, is_out in zip(CANDIDATES, out, strict=True)]
    fitting = tuple(each for each, is_out in zip(CANDIDATES, out, strict=True) if not is_out)
    # Of several that fit, the documented one is the simplest explanation; CANDIDATES begin with it. Not for the offset,
    # about which `_offset` has decided.
    same_offset = [each for each in fitting if each.frame_offset == CANDIDATES[best].frame_offset]
    return Verdict(
        next(each for each in same_offset if gains[best] - gains[CANDIDATES.index(each)] < LESS),
        fitting,
        explained=float(gains[best] if explained_next is None else adjacent[:, best].sum()),
        next_best=float(gains[out].max()) if any(out) else 0.0,
        forward_flow=explained_next is not None,
        explained_next=explained_next or 0.0,
        **common,
    )


def differs(scene: Verdict, verdict: Verdict) -> bool:
    """Whether a scene surely follows another convention than `verdict`, which is on all scenes together."""
    if verdict.convention is None or scene.convention is None:
        return False
    fitting = {verdict.convention}
    if verdict.forward_flow:  # of which one scene may tell less than all: what stands in for it is as good as another
        fitting = {replace(verdict.convention, frame_offset=offset) for offset in OFFSETS}
    return not fitting & {*scene.fitting}


def surely(differences: NDArray, deviations: float) -> bool:
    """Whether the sum of differences over frames (frames,) is above 0 by so many of its standard errors."""
    if len(differences) < 2:
        return False
    error = math.sqrt(len(differences)) * float(differences.std(ddof=1))
    return error > 0 and float(differences.sum()) / error > deviations


def _explained_next(scenes: Sequence[Sequence[Evidence]], kind: int, explained: float) -> float | None:
    """The share that the vectors, read as a candidate without an offset, explain of the change to the next frame.

    None if they do not lead there. They do if they explain more than they do of the change from the frame before, which
    is `explained` with the best offset, and if the same vectors fit better to the next frame, in nearly every frame.
    """
    if not scenes:
        return None
    before, after = np.array([frame.either_way[:, kind] for frames in scenes for frame in frames]).T
    better = (before - after) / np.maximum(before + after, 1e-6)
    still = [sum(frame.next_still for frame in frames) for frames in scenes]
    moved = [sum(frame.next_moved[kind] for frame in frames) for frames in scenes]
    gain = float(np.mean([1 - m / max(s, 1e-6) for m, s in zip(moved, still, strict=True)]))
    return gain if gain > explained and better.mean() > FITS_BETTER and surely(better, SURE_NEXT) else None


def _scene_shares(frames: Sequence[Evidence]) -> NDArray:
    """What each frame contributes to the shares explained in its scene: (baselines, frames, candidates).

    Summed over the frames, 1 - sum of errors / sum of errors without motion. Frames that lack a baseline contribute 0.
    """
    still, moved = np.stack([each.still for each in frames]), np.stack([each.moved for each in frames])
    total = np.maximum(np.nansum(still, axis=0), 1e-6)
    return np.nan_to_num((still[..., None] - moved) / total[:, None]).swapaxes(0, 1)


def _baseline(shares: NDArray) -> int:
    """The baseline over which the best reading explains most; the shortest if others are not clearly better."""
    most = shares.sum(axis=1).max(axis=1)
    most[0] += LONGER_BASELINE
    return int(np.argmax(most))


def _offset(shares: NDArray) -> int:
    """Index of the best of OFFSETS, from (frames, OFFSETS) between adjacent frames; 0 unless another is better."""
    gains = shares.sum(axis=0)
    best = int(np.argmax(gains))
    better = gains[best] - gains[0]
    sure = better > OFFSET_BETTER and surely(shares[:, best] - shares[:, 0], SURE)
    return best if sure or better > OFFSET_CLEARLY_BETTER else 0


def _ruled_out(shares: NDArray, candidate: int, best: int) -> bool:
    worse = shares[:, best] - shares[:, candidate]
    return bool(worse.sum() > FAR_LESS or (worse.sum() > LESS and surely(worse, SURE)))
