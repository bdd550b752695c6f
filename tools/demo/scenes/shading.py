"""What light makes of the surfaces that rays hit: procedural colour, one point light, light from the sky.

Axis legend: n rays, 3 x/y/z in metres or red/green/blue in linear light; they stand first, as in materials.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .casting import FAR, Caster, Geoms, Hits
from .materials import DISPLAY_GAMMA, Palette
from .recording import Recording

SHADOW_BIAS = 2e-3  # metres; a surface closer than this to the lit point does not shade it


@dataclass(frozen=True)
class Surfaces:
    """What n rays see before the light falls on it. The sky is a surface that only glows."""

    point: np.ndarray  # (3,n)
    direction: np.ndarray  # (3,n) float32, of the ray
    normal: np.ndarray  # (3,n) float32, 0 of the sky
    albedo: np.ndarray  # (3,n) float32
    glow: np.ndarray  # (3,n) float32, what is seen without the light
    gloss: np.ndarray  # (n,) float32

    def take(self, chosen: np.ndarray) -> Surfaces:
        return Surfaces(*(values.take(chosen, axis=-1) for values in vars(self).values()))


@dataclass(frozen=True)
class Lit:
    """Surfaces in the light."""

    color: np.ndarray  # (3,n) float32, display values in 0..1
    lit: np.ndarray  # (n,) bool: the light reaches it
    from_light: np.ndarray  # (3,n) float32, unit, from the light to it


class Shader:
    """Colours of a recording's surfaces."""

    def __init__(self, recording: Recording, caster: Caster) -> None:
        self.recording, self.caster = recording, caster
        self.palette = Palette(recording.materials)

    def surfaces(self, index: int, hits: Hits) -> Surfaces:
        """What rays from the camera of frame `index` have hit."""
        ray = hits.direction.T.copy()
        direction, normal = ray.astype(np.float32), np.ascontiguousarray(hits.normal.T, np.float32)
        point = self.recording.camera_position[index][:, None] + ray * np.minimum(hits.distance, FAR)
        sky, geom = hits.geom < 0, np.maximum(hits.geom, 0)
        albedo = np.where(sky, 0, self._albedo(index, point, normal, geom))
        above = 0.5 + 0.5 * normal[2]  # light from the whole sky, less from below
        side = np.clip(-dot(normal, direction), 0, 1)  # a little from the camera shows shapes in shadow
        fill = self.recording.light.ambient * (0.3 + 0.5 * above + 0.3 * side)
        glow = np.where(sky, self._sky(direction), albedo * fill)
        return Surfaces(point, direction, normal, albedo, glow, np.where(sky, 0, self.palette.gloss[geom]))

    def light(self, index: int, surfaces: Surfaces, geoms: Geoms = Geoms.ALL) -> Lit:
        """Surfaces in the light of frame `index`; only `geoms` throw shadows."""
        from_light, key, shine = self._key_light(index, surfaces, geoms)
        color = surfaces.glow + surfaces.albedo * key + surfaces.gloss * shine
        return Lit(display(color), key > 0, from_light)

    def rays_of_light(self, index: int, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit rays (3,n) from the light to points (3,n), and their lengths (n,)."""
        ray = point - self.recording.light_position[index][:, None]
        length = np.sqrt(dot(ray, ray))
        return ray / length, length

    def in_shadow(self, index: int, ray: np.ndarray, length: np.ndarray, geoms: Geoms) -> np.ndarray:
        """(n,) bool: whether one of `geoms` stands between the light and what lies `length` (n,) along `ray` (3,n)."""
        hits = self.caster.cast(index, self.recording.light_position[index], ray.T, geoms)
        return hits.distance < length - SHADOW_BIAS

    def _sky(self, direction: np.ndarray) -> np.ndarray:
        zenith, horizon = (np.asarray(color, np.float32)[:, None] for color in self.recording.sky)
        return horizon + np.sqrt(np.clip(direction[2], -0.4, 1) + np.float32(0.4)) * (zenith - horizon)

    def _albedo(self, index: int, point: np.ndarray, normal: np.ndarray, geom: np.ndarray) -> np.ndarray:
        """(3,n)"""
        data = self.caster.pose(index)
        local = (point - np.ascontiguousarray(data.geom_xpos.T).take(geom, axis=1)).astype(np.float32)
        axes = np.ascontiguousarray(data.geom_xmat.T, np.float32).take(geom, axis=1)  # row 3 i + j: of world i, own j
        own = (sum(axes[3 * i + j] * vector[i] for i in range(3)) for vector in (local, normal) for j in range(3))
        own = np.stack(list(own))
        return self.palette.color(geom, own[:3], own[3:])

    def _key_light(self, index: int, surfaces: Surfaces, geoms: Geoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions from the moving light (3,n), and what comes from it by Lambert and as highlight (n,) each.

        Both are zero in shadow and outside the spot's cone.
        """
        light = self.recording.light
        ray, length = self.rays_of_light(index, surfaces.point)
        from_light = ray.astype(np.float32)
        facing = -dot(surfaces.normal, from_light)
        strength = np.where(facing > 0, np.float32(light.strength), np.float32(0))
        if light.spot_target is not None:
            axis = (np.asarray(light.spot_target) - self.recording.light_position[index]).astype(np.float32)
            angle = np.degrees(np.arccos(np.clip(axis / np.linalg.norm(axis) @ from_light, -1, 1)))
            strength *= np.clip((light.spot_angle - angle) / (0.25 * light.spot_angle), 0, 1)
        reached = np.flatnonzero(strength)
        shaded = self.in_shadow(index, ray.take(reached, axis=1), length[reached], geoms)
        strength[reached[shaded]] = 0
        half = -from_light - surfaces.direction
        shine = np.clip(dot(half, surfaces.normal) / np.sqrt(dot(half, half)), 0, 1) ** 40
        return from_light, strength * facing, strength * shine


def display(linear: np.ndarray) -> np.ndarray:
    """Linear light float32 to display values in 0..1."""
    return np.clip(linear, 0, 1) ** np.float32(1 / DISPLAY_GAMMA)


def dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(3,n), (3,n) -> (n,)"""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
