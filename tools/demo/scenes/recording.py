"""Runs a scene's physics and keeps what rendering needs: the poses of bodies, camera and light at every frame.

Axis legend: t frame, b body (0 is the world), 3 x/y/z in metres.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import mujoco
import numpy as np

from .builders import SCENES, SPEEDING
from .materials import Material
from .world import Light, Vector, View, World

LONGEST_STEP = 1e-3  # seconds of physics per step; a frame takes a whole number of equal steps
PICTURE_FILL = 0.95  # how much of the picture's shorter side the view's box may take
ORBIT_DEGREES = 14.0  # how far an orbiting camera walks during the clip
CAMERAS = ("static", "orbit")


@dataclass(frozen=True)
class Recording:
    """A simulated clip, independent of the picture's size."""

    model: mujoco.MjModel
    materials: list[Material]  # by geom id
    qpos: np.ndarray  # (t, nq)
    body_position: np.ndarray  # (t, b, 3) world position of the body's origin
    body_rotation: np.ndarray  # (t, b, 3, 3) body axes -> world axes
    camera_position: np.ndarray  # (t, 3)
    camera_rotation: np.ndarray  # (t, 3, 3) world axes -> (right, down, forward)
    fov: float  # degrees across the picture's shorter side
    light: Light
    light_position: np.ndarray  # (t, 3)
    sky: tuple[Vector, Vector]
    frame_seconds: float

    @property
    def num_frames(self) -> int:
        return len(self.qpos)


def simulate(
    name: str, variation: int = 0, *, seed: int = 0, num_frames: int = 33, camera: str = "static"
) -> Recording:
    """One variation of a scene of `SCENES` or `SPEEDING`: a pure function of its arguments."""
    world = World(np.random.default_rng([seed, variation, zlib.crc32(name.encode())]))
    (SCENES | SPEEDING)[name](world)
    return record(world, num_frames, camera)


def record(world: World, num_frames: int, camera: str) -> Recording:
    """Simulates `world` and samples `num_frames` equally spaced instants of its duration, first and last included."""
    model, materials, qvel = world.compile()
    frame_seconds = world.duration / (num_frames - 1)
    steps = math.ceil(frame_seconds / LONGEST_STEP)
    model.opt.timestep = frame_seconds / steps
    qpos = _simulate(model, qvel, num_frames, steps)
    position, rotation = _body_poses(model, qpos)
    camera_position, camera_rotation = camera_path(world, num_frames, camera)
    return Recording(
        model=model,
        materials=materials,
        qpos=qpos,
        body_position=position,
        body_rotation=rotation,
        camera_position=camera_position,
        camera_rotation=camera_rotation,
        fov=world.view.fov,
        light=world.light,
        light_position=np.linspace(world.light.start, world.light.stop, num_frames),
        sky=world.sky,
        frame_seconds=frame_seconds,
    )


def _simulate(model: mujoco.MjModel, qvel: np.ndarray, num_frames: int, steps: int) -> np.ndarray:
    """-> (t, nq). A diverged simulation is an error: MuJoCo itself would restart it and only log a warning."""
    data = mujoco.MjData(model)
    data.qvel[:] = qvel
    qpos = np.empty((num_frames, model.nq))
    qpos[0] = data.qpos
    for frame in range(1, num_frames):
        mujoco.mj_step(model, data, steps)
        qpos[frame] = data.qpos
    if any(warning.number for warning in data.warning):
        raise RuntimeError("the physics diverged or ran out of memory: MuJoCo raised a warning during the simulation")
    return qpos


def _body_poses(model: mujoco.MjModel, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses that belong to `qpos`; the ones that a step leaves in MjData are those from before its integration."""
    data = mujoco.MjData(model)
    position = np.empty((len(qpos), model.nbody, 3))
    rotation = np.empty((len(qpos), model.nbody, 3, 3))
    for frame, state in enumerate(qpos):
        data.qpos[:] = state
        mujoco.mj_kinematics(model, data)
        position[frame] = data.xpos
        rotation[frame] = data.xmat.reshape(-1, 3, 3)
    return position, rotation


def camera_path(world: World, num_frames: int, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """-> positions (t,3) and rotations (t,3,3). "orbit" walks an arc around the view's middle."""
    azimuth = np.full(num_frames, world.view.azimuth)
    if camera == "orbit":
        arc = world.side() * ORBIT_DEGREES
        azimuth = azimuth + np.linspace(-arc / 2, arc / 2, num_frames)
    elif camera != "static":
        raise ValueError(f"camera is {camera!r}; expected one of {', '.join(CAMERAS)}")
    rotations = np.stack([look_rotation(angle, world.view.elevation) for angle in azimuth])
    middle = (np.array(world.view.low) + np.array(world.view.high)) / 2
    distance = max(fitting_distance(world.view, rotation) for rotation in rotations)
    return middle - distance * rotations[:, 2], rotations


def look_rotation(azimuth: float, elevation: float) -> np.ndarray:
    """(3,3), rows: the camera's right, down and forward axes in the world."""
    a, e = math.radians(azimuth), math.radians(elevation)
    forward = np.array([-math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), -math.sin(e)])
    right = np.array([math.cos(a), math.sin(a), 0.0])
    return np.stack([right, np.cross(forward, right), forward])


def fitting_distance(view: View, rotation: np.ndarray) -> float:
    """How far from its middle the camera must stand for the whole box to be in the picture."""
    low, high = np.array(view.low), np.array(view.high)
    corners = np.array([[(low, high)[bit >> axis & 1][axis] for axis in range(3)] for bit in range(8)])
    right, down, forward = rotation @ (corners - (low + high) / 2).T
    half_width = PICTURE_FILL * math.tan(math.radians(view.fov / 2))
    return float((np.maximum(np.abs(right), np.abs(down)) / half_width - forward).max())
