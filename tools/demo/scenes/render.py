"""Pictures, depth and exact motion of a recorded scene, by casting rays.

What rests is cast and coloured once (scenery.py); a frame looks at what moves, and at what that covers and shades. The
outcome is that of casting every ray at everything.

Axis legend: h rows downward, w columns to the right, n rays. A pixel's centre lies at its integer coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .casting import Caster, Geoms, Hits
from .recording import Recording
from .scenery import Scenery, rests
from .shading import Shader, display

VISIBLE_TOLERANCE = 2e-3  # of the distance; a surface nearer than this to the point does not hide it
EDGE_CONTRAST = 0.045  # display units; pixels that differ more from a neighbour are rendered again with more rays
EDGE_SAMPLES = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))  # a rotated grid in the pixel


@dataclass(frozen=True)
class Frame:
    """One frame as it goes to disk."""

    rgb: np.ndarray  # (h,w,3) uint8
    distance: np.ndarray  # (h,w) float32 metres along the ray, inf where nothing was hit
    motion: np.ndarray  # (h,w,2) float32 pixels: where the point was in the previous frame, minus where it is now


@dataclass(frozen=True)
class Painted:
    """What n rays show in one frame."""

    color: np.ndarray  # (3,n) float32 display values in 0..1
    moved: np.ndarray  # (m,) numbers of those that show what moves
    hits: Hits  # of these m
    shaded: np.ndarray  # numbers of those from which something that moves takes the light


class SceneRenderer:
    """Renders any frame of a recording, and the exact motion between any two of its frames."""

    def __init__(self, recording: Recording, height: int, width: int) -> None:
        self.recording = recording
        self.camera, self.caster = Camera(recording, height, width), Caster(recording)
        self.focal, self.pixels = self.camera.focal, self.camera.pixels
        self.shader = Shader(recording, self.caster)
        self.scenery = Scenery(self.camera, self.caster, self.shader, ((0.0, 0.0), *EDGE_SAMPLES))
        self._centres = np.arange(len(self.pixels))  # of the scenery's rays
        self._still = -1, np.empty(0)  # a frame, and the picture of what rests in it

    def frame(self, index: int) -> Frame:
        """Frame 0 has no predecessor: its motion is zero."""
        painted, camera = self._paint(index, self._centres), self.camera
        sight = self.scenery.sight
        distance = sight.distance[self._centres].astype(np.float32)
        distance[painted.moved] = painted.hits.distance
        motion = np.zeros((len(distance), 2), np.float32)
        recording = self.recording
        if index and rests(index, index - 1, recording.camera_position, recording.camera_rotation):
            motion[painted.moved] = self._backward_flow(painted.hits, index, index - 1)[0]
        elif index:
            motion[:] = self._backward_flow(self._camera_hits(index), index, index - 1)[0]
        return Frame(camera.image(self._picture(index, painted)), camera.image(distance), camera.image(motion))

    def motion(self, index: int, previous: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact backward flow between two frames, from the poses alone.

        -> flow (h,w,2) float64 in pixels, and visible (h,w) bool: the point was inside the picture of frame `previous`
        and nothing stood in front of it there. Sky counts as visible where no object covered it.
        """
        hits = self._camera_hits(index)
        flow, point = self._backward_flow(hits, index, previous)
        target = self.pixels + flow
        inside = ((target >= 0) & (target <= [self.camera.width - 1, self.camera.height - 1])).all(axis=1)
        sky = hits.geom < 0
        ray = np.where(sky[:, None], hits.direction, point - self.camera.position(previous))
        length = np.linalg.norm(ray, axis=1)
        seen = self.caster.cast(previous, self.camera.position(previous), ray / length[:, None])
        reached = np.where(sky, seen.distance, seen.distance / (1 - VISIBLE_TOLERANCE)) >= np.where(sky, np.inf, length)
        return self.camera.image(flow), self.camera.image(inside & reached)

    def surfaces(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What a pixel shows: distance (h,w) float32 in metres along the ray, body id (h,w); 0 and -1 for nothing."""
        hits = self._camera_hits(index)
        missed = hits.geom < 0
        body = np.where(missed, -1, self.recording.model.geom_bodyid[hits.geom])
        return self.camera.image(np.where(missed, 0, hits.distance).astype(np.float32)), self.camera.image(body)

    def _camera_hits(self, index: int) -> Hits:
        """Of a ray through every pixel's centre, cast at everything."""
        return self.caster.cast(index, self.camera.position(index), self.camera.directions(index, self.pixels))

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
        return self.camera.project(previous, before) - self.camera.project(index, now), point

    def moved_bodies(self, index: int, previous: int) -> np.ndarray:
        """Ids of the bodies whose pose differs between the two frames."""
        position, rotation = self.recording.body_position, self.recording.body_rotation
        moved = (position[index] != position[previous]).any(axis=1)
        return np.flatnonzero(moved | (rotation[index] != rotation[previous]).any(axis=(1, 2)))

    # --- colour -----------------------------------------------------------------------------------------------------

    def _paint(self, index: int, rays: np.ndarray) -> Painted:
        """Some of the scenery's rays, with what moves before it and with the shadows of that."""
        scenery, caster, shader = self.scenery, self.caster, self.shader
        scenery.require(index, rays)
        sight, surfaces, light = scenery.sight, scenery.surfaces, scenery.light
        camera, lamp = self.camera.position(index), self.recording.light_position[index]
        color, lit = light.color.take(rays, axis=1), light.lit[rays]

        near = np.flatnonzero(caster.near_moving(index, camera, surfaces.direction.take(rays, axis=1)))
        hits = caster.cast(index, camera, sight.direction.take(rays[near], axis=1).T, Geoms.MOVING)
        nearer = np.flatnonzero(hits.distance < sight.distance[rays[near]])
        moved, hits = near[nearer], hits.take(nearer)
        if len(moved):
            color[:, moved] = shader.light(index, shader.surfaces(index, hits)).color

        lit[moved] = False
        lit = np.flatnonzero(lit)
        lit = lit[caster.near_moving(index, lamp, light.from_light.take(rays[lit], axis=1))]
        ray, length = shader.rays_of_light(index, surfaces.point.take(rays[lit], axis=1))
        shaded = lit[shader.in_shadow(index, ray, length, Geoms.MOVING)]
        color[:, shaded] = display(surfaces.glow.take(rays[shaded], axis=1))
        return Painted(color, moved, hits, shaded)

    def _still_picture(self, index: int) -> np.ndarray:
        """(h*w,3) uint8: what rests, in the light of frame `index`."""
        recording, (other, picture) = self.recording, self._still
        tracks = recording.camera_position, recording.camera_rotation, recording.light_position
        if not rests(index, other, *tracks):
            self.scenery.require(index, self._centres)
            colors = self.scenery.light.color[:, self._centres]
            edges = np.flatnonzero(contrast_edges(self.camera.image(colors)))
            samples = self._samples(edges)
            self.scenery.require(index, samples)
            picture = to_bytes(colors)
            picture[edges] = to_bytes(mean_of_samples(self.scenery.light.color.take(samples, axis=1)))
        self._still = index, picture
        return picture

    def _picture(self, index: int, centres: Painted) -> np.ndarray:
        """(h*w,3) uint8; pixels with contrast to a neighbour get more rays (anti-aliasing)."""
        picture = self._still_picture(index)
        changed = np.zeros(len(picture), bool)
        changed[centres.moved] = changed[centres.shaded] = True
        if not changed.any():
            return picture
        near = grown(self.camera.image(changed))
        edges = np.flatnonzero(near & contrast_edges(self.camera.image(centres.color)))
        near = np.flatnonzero(near)
        picture = picture.copy()
        picture[near] = to_bytes(centres.color.take(near, axis=1))
        picture[edges] = to_bytes(mean_of_samples(self._paint(index, self._samples(edges)).color))
        return picture

    def _samples(self, pixels: np.ndarray) -> np.ndarray:
        """Numbers of the scenery's rays at EDGE_SAMPLES of some pixels, sample by sample."""
        places = 1 + np.arange(len(EDGE_SAMPLES))
        return (places[:, None] * len(self.pixels) + pixels).reshape(-1)


def mean_of_samples(colors: np.ndarray) -> np.ndarray:
    """Of EDGE_SAMPLES, sample by sample: (3,samples * n) -> (3,n)"""
    return colors.reshape(3, len(EDGE_SAMPLES), -1).mean(axis=1)


def to_bytes(colors: np.ndarray) -> np.ndarray:
    """Display values (3,n) in 0..1 to (n,3) uint8."""
    return np.round(255 * colors).astype(np.uint8).T.copy()


def contrast_edges(colors: np.ndarray) -> np.ndarray:
    """(3,h,w) -> (h,w) bool: the pixel differs visibly from its right, left, upper or lower neighbour."""
    edges = np.zeros(colors.shape[1:], bool)
    across = (np.abs(colors[:, :, 1:] - colors[:, :, :-1]) > EDGE_CONTRAST).any(axis=0)
    down = (np.abs(colors[:, 1:] - colors[:, :-1]) > EDGE_CONTRAST).any(axis=0)
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def grown(chosen: np.ndarray) -> np.ndarray:
    """(h,w) bool: what is chosen and its eight neighbours."""
    grown = chosen.copy()
    grown[1:] |= chosen[:-1]
    grown[:-1] |= chosen[1:]
    sideways = grown.copy()
    grown[:, 1:] |= sideways[:, :-1]
    grown[:, :-1] |= sideways[:, 1:]
    return grown
