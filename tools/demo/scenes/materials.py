"""Procedural surface colours: solid textures that live in a geom's own coordinates, so that they move with it.

Axis legend: n points; a point is (x, y, z) in metres in its geom's frame. Colours are linear RGB, 0..1. Points and
colours are (3,n): what numpy does with one coordinate of all points at a time is several times as fast.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

NOISE_CELLS = 64  # the noise volume repeats after this many cells; a power of two, so that wrapping is a bit mask
DISPLAY_GAMMA = 2.2


@dataclass(frozen=True)
class Material:
    """What one geom looks like. `cell`: the pattern's size in metres; `grain`: the strength of the noise (0: none)."""

    pattern: str
    color: tuple[float, float, float]
    accent: tuple[float, float, float]
    cell: float
    grain: float = 0.35
    gloss: float = 0.15
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"unknown pattern {self.pattern!r}; expected one of {', '.join(sorted(PATTERNS))}")


def linear_rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """A colour as people name it (HSV, display values) in linear light."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return red**DISPLAY_GAMMA, green**DISPLAY_GAMMA, blue**DISPLAY_GAMMA


@cache
def _noise_volume() -> np.ndarray:
    """(cells^3,) float32 in 0..1: two octaves on one periodic lattice, so that one lookup gives both."""
    rng = np.random.default_rng(20240229)
    fine = rng.random((NOISE_CELLS,) * 3, dtype=np.float32)
    coarse = rng.random((NOISE_CELLS // 2,) * 3, dtype=np.float32)
    for axis in range(3):  # to the fine lattice: every second point is the mean of its two neighbours
        between = (coarse + np.roll(coarse, -1, axis)) / 2
        coarse = np.stack([coarse, between], axis=axis + 1).reshape(
            [size * 2 if index == axis else size for index, size in enumerate(coarse.shape)]
        )
    return np.ascontiguousarray(0.65 * coarse + 0.35 * fine).reshape(-1)


def value_noise(points: np.ndarray) -> np.ndarray:
    """points (3,n), one noise cell per unit -> (n,) float32, smooth, about 0.2..0.8 around 0.5."""
    volume = _noise_volume()
    floor = np.floor(points)
    lattice = floor.astype(np.int32)
    blend = (points - floor).astype(np.float32)
    bx, by, bz = blend * blend * (3 - 2 * blend)
    mask = NOISE_CELLS - 1
    low, high = lattice & mask, (lattice + 1) & mask
    x = (low[0] * NOISE_CELLS**2, high[0] * NOISE_CELLS**2)
    y = (low[1] * NOISE_CELLS, high[1] * NOISE_CELLS)
    z = (low[2], high[2])
    sheets = []
    for xi in x:
        rows = []
        for yi in y:
            row = xi + yi
            near, far = volume.take(row + z[0]), volume.take(row + z[1])
            rows.append(near + bz * (far - near))
        sheets.append(rows[0] + by * (rows[1] - rows[0]))
    return sheets[0] + bx * (sheets[1] - sheets[0])


def _face_coordinates(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two coordinates that run along a box's face: drops the axis that the normal points to."""
    axis = np.abs(normals).argmax(axis=0)
    return np.where(axis == 0, points[1], points[0]), np.where(axis == 2, points[1], points[2])


def _tiles(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    u, v = _face_coordinates(points, normals)
    return (u % 1 < 0.07) | (v % 1 < 0.07)


def _bricks(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    u, v = _face_coordinates(points, normals)
    row = np.floor(2 * v)
    return ((u + 0.5 * (row % 2)) % 1 < 0.06) | ((2 * v) % 1 < 0.12)


def _wood(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Growth rings around the x axis, which lies well outside a typical geom."""
    radius = np.hypot(points[1] + 2.3, points[2] + 3.1)
    along = points * np.array([[0.25], [1.0], [1.0]], np.float32)
    return 0.5 + 0.5 * np.sin(9 * radius + 5 * value_noise(along))


# pattern -> function of (points in cells, normals), giving 0 where the colour shows and 1 where the accent does
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda points, _: np.zeros(points.shape[1]),
    "checker": lambda points, normals: sum(map(np.floor, _face_coordinates(points, normals))) % 2,
    "cubes": lambda points, _: sum(np.floor(points)) % 2,
    "tiles": _tiles,
    "bricks": _bricks,
    "stripes": lambda points, _: points[2] % 1 < 0.5,
    # A beach ball's six sectors around z. They need no cell: they follow the direction from the geom's centre.
    "sectors": lambda points, _: np.floor(np.arctan2(points[1], points[0]) * 3 / np.pi) % 2,
    "spots": lambda points, _: np.clip((value_noise(points * np.float32(1.7)) - 0.52) * 14, 0, 1),
    "marble": lambda points, _: 0.5 + 0.5 * np.sin(3 * points[0] + 2 * points[2] + 9 * value_noise(points)),
    "wood": _wood,
}


class Palette:
    """The materials of a scene's geoms, for points of any of them at once.

    Attributes:
        gloss: (g,) float32, by geom id.
    """

    def __init__(self, materials: Sequence[Material]) -> None:
        def table(values: Iterable[object]) -> np.ndarray:
            return np.ascontiguousarray(np.array(list(values), np.float32).T)

        self.gloss = table(each.gloss for each in materials)
        self._color = table(each.color for each in materials)
        self._accent = table(each.accent for each in materials)
        self._cell = table(each.cell for each in materials)
        self._grain = table(each.grain for each in materials)
        self._offset = table((0, 0, 0) if each.pattern == "sectors" else each.offset for each in materials)
        self._names = sorted({each.pattern for each in materials})
        self._pattern = np.array([self._names.index(each.pattern) for each in materials])

    def color(self, geom: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """geom (n,), points and normals (3,n) float32 in their geom's frame -> (3,n) linear colour before any light."""
        cells = points / self._cell[geom] + self._offset.take(geom, axis=1)
        amount = np.zeros(len(geom), np.float32)
        pattern = self._pattern[geom]
        for number in np.flatnonzero(np.bincount(pattern, minlength=len(self._names))):
            mine = np.flatnonzero(pattern == number)
            of = PATTERNS[self._names[number]]
            amount[mine] = of(cells.take(mine, axis=1), normals.take(mine, axis=1))
        color = self._color.take(geom, axis=1)
        mixed = color + amount * (self._accent.take(geom, axis=1) - color)
        grain = value_noise(cells * np.float32(2.3) + np.float32(17.0)) - np.float32(0.5)
        return mixed * (1 + 2 * self._grain[geom] * grain)
