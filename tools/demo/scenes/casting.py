"""Casts rays into a recorded scene with MuJoCo (no OpenGL).

Axis legend: n rays, g geoms, 3 x/y/z in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import mujoco
import numpy as np

from .recording import Recording

FAR = 1e4  # metres; rays do not look farther
CONE_MARGIN = 1e-5  # of a cosine; more than the rounding of float32


class Geoms(Enum):
    """Which geoms a ray can end on. What has no joint rests throughout the clip."""

    ALL = (1, 1, 0, 0, 0, 0)  # MuJoCo's flags of its six groups
    RESTING = (1, 0, 0, 0, 0, 0)
    MOVING = (0, 1, 0, 0, 0, 0)


@dataclass(frozen=True)
class Hits:
    """Where n rays ended."""

    direction: np.ndarray  # (n,3) unit, world
    distance: np.ndarray  # (n,) metres along the ray; inf where nothing was hit
    geom: np.ndarray  # (n,) geom id, -1 where nothing was hit
    normal: np.ndarray  # (n,3) unit, world, toward the outside of the geom; 0 where nothing was hit

    def take(self, chosen: np.ndarray) -> Hits:
        return Hits(*(values.take(chosen, axis=0) for values in vars(self).values()))


class Caster:
    """The geoms of a recording, posed as in one of its frames.

    Attributes:
        data: MuJoCo's; the geoms' poses in it are those of the frame of the last call.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording, model = recording, recording.model
        self.data = mujoco.MjData(model)
        moves = model.body_weldid[model.geom_bodyid] != 0
        model.geom_group[:] = moves  # `Geoms` tells them apart by that; physics does not ask for it
        self._moving = np.flatnonzero(moves)
        self._posed: int | None = None

    def pose(self, index: int) -> mujoco.MjData:
        """`data` with the poses of frame `index`."""
        if self._posed != index:
            self.data.qpos[:] = self.recording.qpos[index]
            mujoco.mj_kinematics(self.recording.model, self.data)
            self._posed = index
        return self.data

    def cast(self, index: int, origin: np.ndarray, direction: np.ndarray, geoms: Geoms = Geoms.ALL) -> Hits:
        """Unit rays (n,3) from one point, in the world as it stands in frame `index`."""
        data, count = self.pose(index), len(direction)
        geom, distance, normal = np.empty(count, np.int32), np.empty(count), np.zeros((count, 3))
        if count:
            mujoco.mj_multiRay(
                self.recording.model, data, origin, direction.reshape(-1), np.array(geoms.value, np.uint8), True, -1,
                geom, distance, normal.reshape(-1), count, FAR,
            )  # fmt: skip
        missed = geom < 0
        distance[missed] = np.inf
        normal[missed] = 0
        return Hits(direction, distance, geom, normal)

    def near_moving(self, index: int, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(n,) bool: whether a unit ray (3,n) float32 passes the ball around a geom that moves; no other ray hits one.

        Much cheaper than to cast, and most rays pass none.
        """
        offset = self.pose(index).geom_xpos[self._moving] - origin
        length = np.linalg.norm(offset, axis=1)
        radius = self.recording.model.geom_rbound[self._moving]
        inside = length <= radius
        cosine = np.where(inside, -2.0, np.sqrt(np.maximum(1 - (radius / np.maximum(length, radius)) ** 2, 0)))
        toward = (offset / np.maximum(length, 1e-9)[:, None]).astype(np.float32)
        limit = (cosine - CONE_MARGIN).astype(np.float32)
        return (toward @ direction > limit[:, None]).any(axis=0)
