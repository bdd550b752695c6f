"""A third quantity in a file of its own: surface normals, read from a fourth folder, normals/.

    python -m tests.support.surface_normals PROGRAM.py FLAGS ...

runs a program with it in the table. In the project it would be motion_depth/readouts/normals.py, and a line in
motion_depth/readouts/__init__.py. Axes: b clip, t frame, h w pixel; normals are (..., t, 3, h, w).
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motion_depth.pictures.colours import Bar, ErrorScale, grey_out, within
from motion_depth.readouts import READOUTS
from motion_depth.readouts.masked import count, masked_mean, total
from motion_depth.readouts.readout import Predictions, Readout, Statistics
from motion_depth.readouts.targets import Target, Targets

TOWARDS_CAMERA = (0.0, 0.0, -1.0)


class Normals(Readout):
    name, kinds = "normals", ("normals",)
    channels, map_channels = 3, (3,)
    meaning = "unit vectors, x right, y down, z away from the camera"
    scales = ("normals",)
    means: ClassVar = {"normal_degrees": ("normal_degrees", "normal_pixels")}
    columns = ("normal_degrees", "normal_degrees_baseline")
    headline: ClassVar = {"normal_degrees": "normals"}
    unit, nothing, plot = "degrees", "nothing has a normal", "Normals: mean angle, degrees"
    baselines: ClassVar = {"baseline": "towards the camera"}

    def decode(self, raw: Tensor, statistics: Statistics) -> dict[str, Tensor]:
        """`normals`: (b, t, 3, h, w), of length 1; at first towards the camera."""
        return {"normals": F.normalize(raw + _towards_camera(raw), dim=2)}

    def losses(
        self, predictions: Predictions, targets: Targets, scales: Mapping[str, float], balanced: bool
    ) -> dict[str, Tensor]:
        """`normals_cosine`: 1 - cosine of the angle."""
        normals, valid = targets["normals"]
        cosine = (predictions["normals"] * torch.where(valid[:, :, None], normals, 0.0)).sum(dim=2)
        return {"normals_cosine": masked_mean(1 - cosine, valid) / scales["normals"]}

    def measure(self, targets: Targets) -> dict[str, Tensor]:
        normals, valid = targets["normals"]
        error = 1 - (normals * _towards_camera(normals)).sum(dim=1)
        return {"error": error[valid].sum(), "pixels": valid.sum()}

    def statistics(self, clips: Sequence[dict[str, Tensor]]) -> Statistics:
        """`normals`: mean of what the first prediction costs."""
        error, pixels = (float(sum(clip[name] for clip in clips)) for name in ("error", "pixels"))
        return Statistics({"normals": max(error / max(pixels, 1), 1e-3)})

    def sums(self, predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
        return self._sums(predictions["normals"], targets["normals"])

    def _sums(self, predicted: Tensor, truth: Target) -> dict[str, Tensor]:
        angle = (predicted * truth.map).sum(dim=2).clamp(-1, 1).arccos().rad2deg()
        return {"normal_degrees": total(angle, truth.valid), "normal_pixels": count(truth.valid)}

    def baseline_sums(self, targets: Targets, maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        truth = targets["normals"]
        return {"baseline": self._sums(_towards_camera(truth.map).expand_as(truth.map), truth)}

    def view(self, predictions: Predictions) -> Target:
        return Target(predictions["normals"], None)

    def has_value(self, target: Target) -> Tensor:
        return within(target.map.detach().isfinite().all(dim=1), target.valid)

    def scale(self, target: Target) -> NormalScale:
        return NormalScale()

    def error(self, predicted: Tensor, truth: Target, scale: NormalScale) -> tuple[Tensor, ErrorScale]:
        cosine = (predicted.detach().float().cpu() * truth.map.float().cpu()).sum(dim=1)
        return cosine.clamp(-1, 1).arccos().rad2deg(), ErrorScale(45.0, "°")

    def arrays(self, predictions: Predictions) -> dict[str, np.ndarray]:
        return {"normals": predictions["normals"].numpy(), "units": np.str_(self.meaning)}


@dataclass(frozen=True)
class NormalScale:
    """Red, green and blue are x, y and z."""

    def colour(self, values: Tensor, valid: Tensor | None = None) -> np.ndarray:
        """(t, 3, h, w) to (t, h, w, 3)."""
        normals = values.detach().float().cpu()
        valid = within(normals.isfinite().all(dim=1), valid)
        colours = (normals.masked_fill(~valid[:, None], 0.0) + 1) * 127.5
        return grey_out(colours.clamp(0, 255).byte().movedim(1, -1).numpy(), valid)

    def legend(self) -> Bar:
        return Bar(lambda share: self.colour(torch.stack([2 * share - 1, 0 * share, 0 * share], 1)), ("x 1", "0", "-1"))


def _towards_camera(like: Tensor) -> Tensor:
    return like.new_tensor(TOWARDS_CAMERA).view(3, 1, 1)


def write_normals(scene: Path) -> None:
    """A normals/ folder for a scene: a wall that leans to the right, and no normal in its left column."""
    (scene / "normals").mkdir()
    for path in (scene / "distance_to_camera").iterdir():
        normals = np.zeros((*np.load(path).shape, 3), np.float32)
        normals[:] = 0.6, 0.0, -0.8
        normals[:, 0] = np.nan
        np.save(scene / f"normals/{path.stem}.npy", normals)


def add_to_table() -> None:
    READOUTS["normals"] = Normals()


if __name__ == "__main__":
    add_to_table()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
