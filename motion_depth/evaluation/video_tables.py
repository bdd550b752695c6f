"""The scores of generated videos as markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from motion_depth.data.convention import MOVING_PIXELS
from motion_depth.evaluation.scores import sigma_name
from motion_depth.evaluation.videos import CHANGED, FROZEN, GENERATED, OTHER_PROMPT, RECONSTRUCTION, TRAINING_MEAN
from motion_depth.pictures.panels import spread_frames

NAMES = {
    GENERATED: "generated",
    OTHER_PROMPT: "another kind's prompt",
    FROZEN: "frozen first frame",
    TRAINING_MEAN: "mean of training scenes",
    RECONSTRUCTION: "truth through the VAE",
}
MODEL, RANDOM, TRIVIAL = "model", "random", "trivial"  # whose velocity; the last is that of `trivial_flow_loss`


def markdown(results: Mapping) -> str:
    """What `tools/evaluate_video.py` has measured.

    Args:
        results: of `summarise_videos`, with `flow` (`variance`, and `share` by noise level), `still_changed`, and how
            many `training_scenes` of each kind there are, if any.
    """
    return "\n\n".join([_flow(results["flow"]), _colours(results), _regions(results)])


def _flow(flow: Mapping) -> str:
    columns = (MODEL, OTHER_PROMPT, TRIVIAL, RANDOM)
    rows = ([sigma_name(float(sigma)), *(f"{found[name]:.3f}" for name in columns)]
            for sigma, found in flow["share"].items())  # fmt: skip
    return (
        f"Mean squared error of the velocity as a share of the latents' variance ({flow['variance']:.3f}); 0 would be "
        "perfect, and at noise 1.0 only the first frame and the prompt are known. No model: the best guess that knows "
        "no more than how large latents are.\n\n"
        + _table(["noise", "the model", NAMES[OTHER_PROMPT], "no model", "random weights"], rows)
    )


def _colours(results: Mapping) -> str:
    frames = spread_frames(len(results["psnr"][GENERATED]["frames"]))
    header = ["PSNR, dB", *(f"frame {frame + 1}" for frame in frames), "all"]
    rows = [
        [f"{NAMES[video]}{where}", *(_decibel(found["frames"][frame]) for frame in frames), _decibel(found["all"])]
        for part, where in (("psnr", ""), ("moving_psnr", "; moving pixels"))
        for video in NAMES
        if (found := results[part].get(video))
    ]
    return (
        "Against the true video, by frames ahead of the first, over all scenes; below that of the truly moving pixels "
        f"only (more than {MOVING_PIXELS:g} px from a frame to the next):\n\n{_table(header, rows)}"
    )


def _regions(results: Mapping) -> str:
    overlap, better = results["overlap"], results["better"]
    videos = [video for video in NAMES if video in results["mean_overlap"]]
    changing = [kind for kind, found in overlap.items() if found]
    rows = [
        [kind, *(f"{overlap[kind][video]:.2f}" for video in videos), "yes" if kind in better else "no"]
        for kind in changing
    ]
    mean = ["mean", *(f"{results['mean_overlap'][video]:.3f}" for video in videos), f"{len(better)} of {len(rows)}"]
    still = [kind for kind, found in overlap.items() if not found]
    left_out = f" In {', '.join(still)} nothing changes." if still else ""
    counts = results["training_scenes"].values()
    of = f" The training scenes are at least {min(counts)} of each kind." if counts else ""
    return (
        f"Overlap (intersection over union) of what has changed since frame 0, by more than {CHANGED} of 255, with "
        f"what truly has; better: than every baseline, these being all but the last.{of}{left_out} Of a video that "
        f"stands still the VAE changes {results['still_changed']:.2%} of the pixels.\n\n"
        + _table(["kind", *(NAMES[video] for video in videos), "better"], [*rows, mean])
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _decibel(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "equal" if value > 0 else "-"
