"""A scene under construction: a MuJoCo model, what its geoms look like, where its bodies start, light and view.

Axes: x to the right in the picture, y away from the camera, z up. Lengths in metres, angles in degrees, masses in kg.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import mujoco
import numpy as np

from .materials import Material, linear_rgb

Vector = tuple[float, float, float]
T = TypeVar("T")

SPHERE = mujoco.mjtGeom.mjGEOM_SPHERE
BOX = mujoco.mjtGeom.mjGEOM_BOX
CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER
CAPSULE = mujoco.mjtGeom.mjGEOM_CAPSULE
ELLIPSOID = mujoco.mjtGeom.mjGEOM_ELLIPSOID
PLANE = mujoco.mjtGeom.mjGEOM_PLANE

CONTACT_SECONDS = 0.012  # how long a bounce lasts: a dozen physics steps, far less than a frame


@dataclass
class View:
    """The camera looks at the middle of the box `low`..`high` from so far away that the whole box is in the picture."""

    low: Vector
    high: Vector
    azimuth: float = 0.0  # 0: the camera stands on the -y side; positive: it walks to the right
    elevation: float = 18.0
    fov: float = 40.0  # across the picture's shorter side


@dataclass
class Light:
    """A point light that travels in a straight line or an arc from `start` to `stop` during the clip."""

    start: Vector
    stop: Vector
    strength: float = 1.0
    ambient: float = 0.36
    spot_target: Vector | None = None  # None: shines everywhere
    spot_angle: float = 20.0  # half the cone's opening


@dataclass
class World:
    """Builders fill this in; `compile()` gives the model. `duration` is the clip's physical length in seconds."""

    rng: np.random.Generator
    duration: float = 1.8
    view: View = field(default_factory=lambda: View((-1, -0.5, 0), (1, 0.5, 1)))
    light: Light = field(default_factory=lambda: Light((-2, -3, 4), (-2, -3, 4)))
    sky: tuple[Vector, Vector] = ((0.25, 0.45, 0.85), (0.75, 0.85, 0.95))  # zenith, horizon; linear RGB
    spec: mujoco.MjSpec = field(default_factory=mujoco.MjSpec)

    def __post_init__(self) -> None:
        self.spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        self.spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        self.spec.option.impratio = 10.0  # keeps resting contacts from creeping
        self._looks: list[tuple[mujoco.MjsGeom, Material]] = []
        self._starts: list[tuple[mujoco.MjsBody, np.ndarray, np.ndarray]] = []

    # --- randomness -------------------------------------------------------------------------------------------------

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def vector(self, low: float, high: float) -> Vector:
        """Three numbers, such as sizes or angles."""
        return tuple(self.rng.uniform(low, high, 3))

    def choice(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def side(self) -> int:
        """-1 or 1: from which side the action comes."""
        return int(self.choice([-1, 1]))

    def material(
        self, patterns: Sequence[str], cell: float, hue: float | None = None, *, saturation: float = 0.75,
        value: float = 0.85, contrast: float = 0.55, **settings: float,
    ) -> Material:  # fmt: skip
        """One of `patterns` in a random colour (or near `hue`, 0..1); the accent is darker by `contrast` (0..1)."""
        hue = self.uniform(0, 1) if hue is None else hue + self.uniform(-0.03, 0.03)
        pattern = self.choice(patterns)
        color = linear_rgb(hue, saturation, value * self.uniform(0.9, 1.1))
        accent_hue, accent_saturation = hue + self.uniform(-0.12, 0.12), saturation * self.uniform(0.5, 1.0)
        accent = linear_rgb(accent_hue, accent_saturation, value * (1 - contrast))
        return Material(pattern, color, accent, cell, offset=tuple(self.rng.uniform(0, 50, 3).tolist()), **settings)

    # --- bodies -----------------------------------------------------------------------------------------------------

    def body(
        self, position: Vector, *, euler: Vector = (0, 0, 0), velocity: Vector = (0, 0, 0), spin: Vector = (0, 0, 0),
        fixed: bool = False,
    ) -> mujoco.MjsBody:  # fmt: skip
        """A body that moves freely (or is `fixed`); velocity in m/s and spin in rad/s, both along the world's axes."""
        body = self.spec.worldbody.add_body(pos=position, quat=quaternion_from_euler(euler))
        if not fixed:
            body.add_freejoint()
            self._starts.append((body, np.asarray(velocity, float), np.asarray(spin, float)))
        return body

    def geom(
        self, body: mujoco.MjsBody, kind: mujoco.mjtGeom, size: Sequence[float], material: Material, *,
        position: Vector = (0, 0, 0), euler: Vector = (0, 0, 0), ends: Sequence[float] | None = None,
        density: float = 400.0, friction: float = 0.6, bounce: float | None = None, solid: bool = True,
    ) -> None:  # fmt: skip
        """Adds a geom to `body` (the world's body too). `ends` (x0,y0,z0,x1,y1,z1) places a capsule or cylinder.

        bounce: speed after / speed before an impact, 0..1 (None: MuJoCo's soft default). solid=False: only seen.
        """
        geom = body.add_geom(type=kind, size=[*size, 0.0, 0.0][:3], density=density)
        if ends is None:
            geom.pos, geom.quat = position, quaternion_from_euler(euler)
        else:
            geom.fromto = ends
        geom.friction = [friction, 0.005, 0.0001]
        if bounce is not None:
            geom.solref, geom.solimp[:3], geom.priority = contact_stiffness(bounce), [0.98, 0.99, 0.001], 1
        if not solid:
            geom.contype, geom.conaffinity, geom.density = 0, 0, 0.0
        self._looks.append((geom, material))

    def compile(self) -> tuple[mujoco.MjModel, list[Material], np.ndarray]:
        """-> (model, material per geom id, initial qvel)."""
        model = self.spec.compile()
        materials = {geom.id: material for geom, material in self._looks}
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        qvel = np.zeros(model.nv)
        for body, velocity, spin in self._starts:
            first = model.jnt_dofadr[model.body_jntadr[body.id]]
            qvel[first : first + 3] = velocity
            qvel[first + 3 : first + 6] = data.xmat[body.id].reshape(3, 3).T @ spin  # in the body's axes
        return model, [materials[index] for index in range(model.ngeom)], qvel


def contact_stiffness(bounce: float) -> tuple[float, float]:
    """MuJoCo's direct (-stiffness, -damping) for a coefficient of restitution: a damped spring that lets go in time."""
    if not 0 < bounce < 1:
        raise ValueError(f"bounce is {bounce}; expected a number between 0 and 1")
    decay = -np.log(bounce) / np.pi
    damping_ratio = decay / np.sqrt(1 + decay**2)
    frequency = np.pi / CONTACT_SECONDS
    return -float(frequency**2), -float(2 * damping_ratio * frequency)


def quaternion_from_euler(degrees: Vector) -> np.ndarray:
    """Rotation about x, then y, then z (fixed axes), as MuJoCo's (w, x, y, z)."""
    result = np.array([1.0, 0, 0, 0])
    for axis, angle in zip(np.eye(3), np.radians(degrees), strict=True):
        turn, product = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, axis, angle)
        mujoco.mju_mulQuat(product, turn, result)
        result = product
    return result
