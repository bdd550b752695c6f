"""Pictures, depth and exact motion of a recorded scene, by casting rays with MuJoCo (no OpenGL).

Axis legend: h rows downward, w columns to the right, n rays. A pixel's centre lies at its integer coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
from einops import rearrange

from .materials import DISPLAY_GAMMA, surface_color
from .recording import Recording

FAR = 1e4  # metres; rays do not look farther
SHADOW_BIAS = 2e-3  # metres; a surface closer than this to the lit point does not shade it
VISIBLE_TOLERANCE = 2e-3  # of the distance; a surface nearer than this to the point does not hide it
EDGE_CONTRAST = 0.045  # display units; pixels that differ more from a neighbour are rendered again with more rays
EDGE_SAMPLES = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))  # a rotated grid in the pixel


@dataclass(frozen=True)
class Hits:
    """Where n rays ended."""

    direction: np.ndarray  # (n,3) unit, world
    distance: np.ndarray  # (n,) metres along the ray; inf where nothing was hit
    geom: np.ndarray  # (n,) geom id, -1 where nothing was hit
    normal: np.ndarray  # (n,3) unit, world, toward the outside of the geom; 0 where nothing was hit


@dataclass(frozen=True)
class Frame:
    """One frame as it goes to disk."""

    rgb: np.ndarray  # (h,w,3) uint8
    distance: np.ndarray  # (h,w) float32 metres along the ray, inf where nothing was hit
    motion: np.ndarray  # (h,w,2) float32 pixels: where the point was in the previous frame, minus where it is now


class SceneRenderer:
    """Renders any frame of a recording, and the exact motion between any two of its frames."""

    def __init__(self, recording: Recording, height: int, width: int) -> None:
        self.recording = recording
        self.height, self.width = height, width
        self.focal = 0.5 * min(height, width) / math.tan(math.radians(recording.fov / 2))
        self._data = mujoco.MjData(recording.model)
        rows, columns = np.mgrid[:height, :width].reshape(2, -1)
        self.pixels = np.stack([columns, rows], axis=1).astype(float)  # (h*w, 2) as (x, y)

    def frame(self, index: int) -> Frame:
        """Frame 0 has no predecessor: its motion is zero."""
        hits = self._camera_hits(index, self.pixels)
        colors = self._picture(index, hits)
        motion = self._backward_flow(hits, index, index - 1)[0] if index else np.zeros((len(hits.geom), 2))
        return Frame(
            rgb=self._image(np.round(255 * colors).astype(np.uint8)),
            distance=self._image(hits.distance.astype(np.float32)),
            motion=self._image(motion.astype(np.float32)),
        )

    def motion(self, index: int, previous: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact backward flow between two frames, from the poses alone.

        -> flow (h,w,2) float64 in pixels, and visible (h,w) bool: the point was inside the picture of frame `previous`
        and nothing stood in front of it there. Sky counts as visible where no object covered it.
        """
        hits = self._camera_hits(index, self.pixels)
        flow, point = self._backward_flow(hits, index, previous)
        target = self.pixels + flow
        inside = ((target >= 0) & (target <= [self.width - 1, self.height - 1])).all(axis=1)
        ray = point - self.recording.camera_position[previous]
        ray[hits.geom < 0] = hits.direction[hits.geom < 0]
        length = np.where(hits.geom < 0, np.inf, np.linalg.norm(ray, axis=1))
        seen = self._cast(previous, self.recording.camera_position[previous], ray)
        reached = np.where(hits.geom < 0, seen.distance, seen.distance / (1 - VISIBLE_TOLERANCE)) >= length
        return self._image(flow), self._image(inside & reached)

    def surfaces(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What a pixel shows: distance (h,w) float32 in metres along the ray, body id (h,w); 0 and -1 for nothing."""
        hits = self._camera_hits(index, self.pixels)
        missed = hits.geom < 0
        body = np.where(missed, -1, self.recording.model.geom_bodyid[hits.geom])
        return self._image(np.where(missed, 0, hits.distance).astype(np.float32)), self._image(body)

    # --- rays -------------------------------------------------------------------------------------------------------

    def _image(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(self.height, self.width, *values.shape[1:])

    def _cast(self, index: int, origin: np.ndarray, rays: np.ndarray) -> Hits:
        """Rays (n,3) of any length from one point, in the world as it stands in frame `index`."""
        model, data = self.recording.model, self._data
        data.qpos[:] = self.recording.qpos[index]
        mujoco.mj_kinematics(model, data)
        direction = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        count = len(direction)
        geom, distance, normal = np.empty(count, np.int32), np.empty(count), np.zeros(3 * count)
        mujoco.mj_multiRay(
            model, data, origin, direction.reshape(-1), None, True, -1, geom, distance, normal, count, FAR
        )
        missed = geom < 0
        distance[missed] = np.inf
        normal = rearrange(normal, "(n xyz) -> n xyz", xyz=3)
        normal[missed] = 0
        return Hits(direction, distance, geom, normal)

    def _camera_hits(self, index: int, pixels: np.ndarray) -> Hits:
        """pixels (n,2) as (x, y), pixel centres at integers."""
        middle = np.array([self.width - 1, self.height - 1]) / 2
        rays = np.concatenate([(pixels - middle) / self.focal, np.ones((len(pixels), 1))], axis=1)
        return self._cast(index, self.recording.camera_position[index], rays @ self.recording.camera_rotation[index])

    def _project(self, index: int, directions: np.ndarray) -> np.ndarray:
        """World vectors from the camera (n,3) -> (n,2) image coordinates in pixels from the picture's middle."""
        right, down, forward = (directions @ self.recording.camera_rotation[index].T).T
        return self.focal * np.stack([right, down], axis=1) / forward[:, None]

    # --- motion -----------------------------------------------------------------------------------------------------

    def _backward_flow(self, hits: Hits, index: int, previous: int) -> tuple[np.ndarray, np.ndarray]:
        """-> flow (n,2) in pixels and the hit points' world positions in frame `previous` (n,3; unused for sky).

        Flow is a difference of two projections, so what rests before a resting camera moves by exactly zero.
        """
        camera, sky = self.recording.camera_position, hits.geom < 0
        now = hits.direction * np.where(sky, 1.0, hits.distance)[:, None]
        point = camera[index] + now
        # What rests is carried over by the camera's own step; the sky is too far away even for that to matter.
        before = now + np.where(sky[:, None], 0.0, camera[index] - camera[previous])
        body = np.where(sky, -1, self.recording.model.geom_bodyid[hits.geom])
        for b in self.moved_bodies(index, previous):
            mine = body == b
            position, rotation = self.recording.body_position[:, b], self.recording.body_rotation[:, b]
            local = (point[mine] - position[index]) @ rotation[index]
            point[mine] = local @ rotation[previous].T + position[previous]
            before[mine] = point[mine] - camera[previous]
        return self._project(previous, before) - self._project(index, now), point

    def moved_bodies(self, index: int, previous: int) -> np.ndarray:
        """Ids of the bodies whose pose differs between the two frames."""
        position, rotation = self.recording.body_position, self.recording.body_rotation
        moved = (position[index] != position[previous]).any(axis=1)
        return np.flatnonzero(moved | (rotation[index] != rotation[previous]).any(axis=(1, 2)))

    # --- colour -----------------------------------------------------------------------------------------------------

    def _picture(self, index: int, hits: Hits) -> np.ndarray:
        """(h*w,3) in 0..1 display values; pixels with contrast to a neighbour get more rays (anti-aliasing)."""
        colors = self._shade(index, hits)
        edges = np.flatnonzero(contrast_edges(self._image(colors)))
        if len(edges):
            samples = np.zeros((len(edges), 3), np.float32)
            for offset in EDGE_SAMPLES:
                samples += self._shade(index, self._camera_hits(index, self.pixels[edges] + offset))
            colors[edges] = samples / len(EDGE_SAMPLES)
        return colors

    def _shade(self, index: int, hits: Hits) -> np.ndarray:
        """(n,3) float32 display values in 0..1."""
        recording = self.recording
        colors = self._sky_color(hits.direction)
        surface = np.flatnonzero(hits.geom >= 0)
        if len(surface):
            direction = hits.direction[surface].astype(np.float32)
            points = recording.camera_position[index] + hits.direction[surface] * hits.distance[surface, None]
            normal = hits.normal[surface].astype(np.float32)
            albedo, gloss = self._albedo(points, normal, hits.geom[surface])
            key, shine = self._key_light(index, points, normal, direction)
            above = 0.5 + 0.5 * normal[:, 2]  # light from the whole sky, less from below
            side = np.clip(-(normal * direction).sum(axis=1), 0, 1)  # a little from the camera shows shapes in shadow
            fill = recording.light.ambient * (0.3 + 0.5 * above + 0.3 * side)
            colors[surface] = albedo * (fill + key)[:, None] + (gloss * shine)[:, None]
        return np.clip(colors, 0, 1) ** np.float32(1 / DISPLAY_GAMMA)

    def _sky_color(self, direction: np.ndarray) -> np.ndarray:
        zenith, horizon = (np.asarray(color, np.float32) for color in self.recording.sky)
        height = np.clip(direction[:, 2].astype(np.float32), -0.4, 1)
        return horizon + np.sqrt(np.clip(height + 0.4, 0, 1))[:, None] * (zenith - horizon)

    def _albedo(self, points: np.ndarray, normal: np.ndarray, geom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-> colour (n,3) and gloss (n,). `_cast` left the geoms' poses of this frame in MjData."""
        albedo, gloss = np.empty((len(points), 3), np.float32), np.empty(len(points), np.float32)
        order = np.argsort(geom, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(geom[order])) + 1):
            g = geom[mine[0]]
            material = self.recording.materials[g]
            rotation = self._data.geom_xmat[g].reshape(3, 3)
            local = ((points[mine] - self._data.geom_xpos[g]) @ rotation).astype(np.float32)
            albedo[mine] = surface_color(material, local, normal[mine] @ rotation.astype(np.float32))
            gloss[mine] = material.gloss
        return albedo, gloss

    def _key_light(self, index: int, points: np.ndarray, normal: np.ndarray, direction: np.ndarray):
        """Lambert and highlight of the moving light (n,) each, zero in shadow and outside the spot's cone."""
        light, position = self.recording.light, self.recording.light_position[index]
        ray = points - position
        length = np.linalg.norm(ray, axis=1)
        shaded = self._cast(index, position, ray).distance < length - SHADOW_BIAS
        toward = (-ray / length[:, None]).astype(np.float32)
        facing = (normal * toward).sum(axis=1)
        strength = np.where(shaded | (facing <= 0), 0, light.strength).astype(np.float32)
        if light.spot_target is not None:
            axis = np.asarray(light.spot_target) - position
            angle = np.degrees(np.arccos(np.clip(ray @ axis / (length * np.linalg.norm(axis)), -1, 1)))
            strength *= np.clip((light.spot_angle - angle) / (0.25 * light.spot_angle), 0, 1).astype(np.float32)
        half = toward - direction
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        shine = np.clip((half * normal).sum(axis=1), 0, 1) ** 40
        return strength * facing, strength * shine


def contrast_edges(colors: np.ndarray) -> np.ndarray:
    """(h,w,3) -> (h,w) bool: the pixel differs visibly from its right, left, upper or lower neighbour."""
    edges = np.zeros(colors.shape[:2], bool)
    across = np.abs(np.diff(colors, axis=1)).max(axis=2) > EDGE_CONTRAST
    down = np.abs(np.diff(colors, axis=0)).max(axis=2) > EDGE_CONTRAST
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges
