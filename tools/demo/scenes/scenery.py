"""What rests in a recorded scene: cast, coloured and lit once for as long as camera and light rest.

Axis legend: n rays, p pixels, 3 x/y/z in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .camera import Camera
from .casting import Caster, Geoms
from .shading import Lit, Shader, Surfaces

T = TypeVar("T", "Sight", Surfaces, Lit)


@dataclass(frozen=True)
class Sight:
    """Where rays end that look at what rests, see `Hits`."""

    direction: np.ndarray  # (3,n)
    distance: np.ndarray  # (n,)


class Scenery:
    """Rays from the camera through every pixel, each at several places in it; number = place * p + pixel.

    A ray is cast when it is first asked for: most never are.

    Args:
        places: in a pixel, (x, y) from its centre.
    """

    def __init__(self, camera: Camera, caster: Caster, shader: Shader, places: Sequence[tuple[float, float]]) -> None:
        self.camera, self.caster, self.shader, self.places = camera, caster, shader, np.array(places)
        count = len(places) * len(camera.pixels)
        self._seen, self._lit = np.zeros(count, bool), np.zeros(count, bool)
        self._posed = self._lighted = -1  # a frame in which camera and light stood as they were last asked for

        def vectors(dtype: type = np.float32) -> np.ndarray:
            return np.empty((3, count), dtype)

        self.sight = Sight(vectors(float), np.empty(count))
        several = (vectors() for _ in range(4))
        self.surfaces = Surfaces(vectors(float), *several, np.empty(count, np.float32))
        self.light = Lit(vectors(), np.empty(count, bool), vectors())

    def require(self, index: int, rays: np.ndarray | slice) -> None:
        """Fills `sight`, `surfaces` and `light` at these rays, as what rests looks in frame `index`."""
        recording = self.camera.recording
        if not rests(index, self._posed, recording.camera_position, recording.camera_rotation):
            self._seen[:] = self._lit[:] = False
        if not rests(index, self._lighted, recording.light_position):
            self._lit[:] = False
        self._posed = self._lighted = index
        numbers = np.arange(len(self._seen))[rays]
        self._look(index, numbers[~self._seen[numbers]])
        unlit = numbers[~self._lit[numbers]]
        if len(unlit):
            put(self.light, unlit, self.shader.light(index, self.surfaces.take(unlit), Geoms.RESTING))
            self._lit[unlit] = True

    def _look(self, index: int, rays: np.ndarray) -> None:
        if not len(rays):
            return
        place, pixel = np.divmod(rays, len(self.camera.pixels))
        direction = self.camera.directions(index, self.camera.pixels[pixel] + self.places[place])
        hits = self.caster.cast(index, self.camera.position(index), direction, Geoms.RESTING)
        put(self.sight, rays, Sight(hits.direction.T, hits.distance))
        put(self.surfaces, rays, self.shader.surfaces(index, hits))
        self._seen[rays] = True


def rests(index: int, other: int, *tracks: np.ndarray) -> bool:
    """Whether things whose poses are given by frame (t, ...) stand alike in two frames; False if there is no other."""
    return index == other or (other >= 0 and all((track[index] == track[other]).all() for track in tracks))


def put(whole: T, rays: np.ndarray, part: T) -> None:
    """Fills in some rays, which are the last axis of everything."""
    for name, values in vars(whole).items():
        for row, its in zip(np.atleast_2d(values), np.atleast_2d(getattr(part, name)), strict=True):
            row[rays] = its
