"""Validation while training: the same clips, noise levels and noise every time, shared by all processes.

Nothing here draws from a random number generator that training uses, so the training sequence stays as it is without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from motion_depth.clips.batch import Sample
from motion_depth.evaluation.scores import NOISE_LEVELS, metrics_of, read_clip, score_frames, sigma_name
from motion_depth.model.backbone import pad_contexts
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.pictures.media import write_png, write_video
from motion_depth.pictures.panels import spread_frames, strip, video
from motion_depth.readouts import READOUTS
from motion_depth.readouts.losses import head_losses, trivial_flow_loss
from motion_depth.readouts.readout import Statistics
from motion_depth.readouts.rows import truth_and_prediction_rows
from motion_depth.readouts.targets import Targets
from motion_depth.settings import Settings
from motion_depth.training.log import RunLog
from motion_depth.training.samples import HeldOut
from motion_depth.training.trackers import show_pictures

FLOW = "flow_error", "flow_error_baseline"
PICTURE_LEVEL = 0.25  # noise level of the panel and the video
FRAMES_PER_SECOND = 8


@dataclass
class Validation:
    """Fixed clips of scenes that are not trained on.

    Attributes:
        accelerator: every process holds its share of the clips.
        settings: the main process also writes a panel and a video of its first clip into `<output_path>/validation/`.
        held_out: this process's clips.
        model: that is trained.
        statistics: of the training set: loss scales and maps for the baselines.
        log: rows go there; it leaves the time of validating out.
    """

    accelerator: Accelerator
    settings: Settings
    held_out: HeldOut
    model: MotionDepthModel
    statistics: Statistics
    log: RunLog

    def run(self, step: int) -> float:
        """Scores the clips after an iteration, logs it, and returns `score`. Collective."""
        with self.log.paused():
            row = self.score(step)
            self.log.log(step, row, "val")
            written = self.settings.output.output_path / "validation" / f"step-{step}"
            if self.settings.with_heads:
                pictures = {"val/panel": written.with_suffix(".png"), "val/video": written.with_suffix(".mp4")}
                show_pictures(self.accelerator, pictures, step)
        if not math.isfinite(row["score"]):
            self.log.event(step, "val/score is not finite: the model predicts inf or NaN; best/ stays as it is")
        return row["score"]

    def score(self, step: int) -> dict[str, float]:
        """Scores all clips at all noise levels; collective.

        Returns:
            On every process: `<metric>/sigma_<level>` with the baselines' beside them, `<loss>/sigma_<level>`, where
            the flow-matching loss is trained on also `flow_error/sigma_<level>`, the mean squared error of the
            velocity, and `flow_error_baseline/sigma_<level>` (`trivial_flow_loss`); and `score` (see `score_of`).
        """
        optim, with_flow = self.settings.optim, self.settings.with_flow
        self.model.eval()
        scores, losses = [], []
        for place, sample in enumerate(self.held_out.samples):
            context = pad_contexts([sample.context])
            device = self.accelerator.device
            for sigma, predictions, targets in read_clip(
                self.model, sample, context, NOISE_LEVELS, optim.seed, device, optim.dtype, with_flow
            ):
                if place >= self.held_out.own:
                    continue
                losses.append({"sigma": sigma} | self._losses(predictions, targets))
                if with_flow:
                    errors = float(predictions["flow_error"]), trivial_flow_loss(sample.latents, sigma)
                    losses[-1] |= dict(zip(FLOW, errors, strict=True))
                if not self.settings.with_heads:
                    continue
                keys = {"scene": sample.scene, "window": sample.window, "sigma": sigma}
                scores.append(score_frames(predictions, targets, self.statistics.maps, keys))
                if place == 0 and sigma == PICTURE_LEVEL and self.accelerator.is_main_process:
                    self._draw(predictions, targets, sample, step)
        self.model.train()
        table = pandas.DataFrame(gather_object(losses)).groupby("sigma").agg(lambda each: each.mean(skipna=False))
        if self.settings.with_heads:
            rows = pandas.concat(gather_object(scores), ignore_index=True)
            levels = {sigma: metrics_of(part) for sigma, part in rows.groupby("sigma")}
        else:
            levels = {sigma: row.to_dict() for sigma, row in table.iterrows()}
        named = {
            f"{name}/sigma_{sigma_name(sigma)}": value
            for sigma, found in levels.items()
            for name, value in (found | table.loc[sigma].to_dict()).items()
            if value is not None
        }
        return named | {"score": score_of(levels)}

    def _losses(self, predictions: dict[str, Tensor], targets: Targets) -> dict[str, float]:
        if not self.settings.with_heads:
            return {}
        balanced = bool(self.settings.loss.motion_balance)
        found = head_losses(predictions, targets, self.statistics.scales, balanced)
        return {name: float(value.mean()) for name, value in found.items()}

    def _draw(self, predictions: dict[str, Tensor], targets: Targets, sample: Sample, step: int) -> None:
        folder = self.settings.output.output_path / "validation"
        frames, truth = self.held_out.frames, targets.each(lambda value: value[0])
        rows = truth_and_prediction_rows(frames, truth, {name: value[0] for name, value in predictions.items()})
        title = f"{sample.scene}, noise {sigma_name(PICTURE_LEVEL)}, iteration {step}"
        write_png(folder / f"step-{step}.png", strip(rows, spread_frames(len(frames)), title=title))
        write_video(folder / f"step-{step}.mp4", video(rows, title=title), FRAMES_PER_SECOND)


def score_of(levels: dict[float, dict[str, float | None]]) -> float:
    """What `best/` is chosen by: error as a share of the trivial baselines, averaged over quantities and noise levels.

    1 is as good as mean depth and no motion, or without heads as a velocity that knows nothing of the clip; lower is
    better. Metrics that have no pixel are left out; one that is inf
    or NaN makes the score so. The order of the table plays no part, not even in the last bit.
    """
    quantities = sorted(readout.scored for readout in READOUTS.values())
    shares = [
        found[name] / found[f"{name}_baseline"]
        for found in levels.values()
        for name in (quantities if quantities[0] in found else FLOW[:1])
        if found[name] is not None and found[f"{name}_baseline"]
    ]
    return sum(shares) / len(shares) if shares else 1.0


def is_better(score: float, best: float | None) -> bool:
    """Whether a score is a number, and lower than the best so far, if there is one that is a number."""
    return math.isfinite(score) and (best is None or not math.isfinite(best) or score < best)
