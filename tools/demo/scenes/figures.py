"""Things made of several geoms: ducks, mugs, boxes, baskets, trays of juice, sculptures.

Every function adds one to a `World`; positions are those of the middle of its base. Sizes are full lengths in metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import mujoco
import numpy as np

from .materials import Material
from .world import BOX, CAPSULE, CYLINDER, ELLIPSOID, SPHERE, Vector, World

YELLOW, ORANGE = 0.145, 0.06  # hues


def duck(
    world: World, base: Vector, length: float, *, heading: float = 0.0, tilt: Vector = (0, 0, 0),
    density: float = 120.0, friction: float = 0.4, bounce: float | None = None, **start: Vector | bool,
) -> None:  # fmt: skip
    """A rubber duck that looks toward +x, turned left by `heading` degrees. Its flat, heavy bottom makes it stand.

    start: how it spins, or that it is fixed, see `World.body`.
    """
    s = length / 0.7
    turned = (tilt[0], tilt[1], tilt[2] + heading)
    body = world.body((base[0], base[1], base[2] + 0.2 * s), euler=turned, **start)
    painted = partial(world.material, saturation=0.85)
    yellow = painted(["spots", "plain", "marble"], 0.13 * s, YELLOW, value=0.92, contrast=0.3, gloss=0.35)
    wing = painted(["spots", "stripes"], 0.08 * s, YELLOW - 0.04, value=0.8, gloss=0.3)
    beak = world.material(["plain"], 0.1 * s, ORANGE, saturation=0.95, value=0.95, gloss=0.4)
    dark = world.material(["plain"], 0.1 * s, 0.6, saturation=0.3, value=0.08, gloss=0.8)

    def part(
        kind: mujoco.mjtGeom, size: Sequence[float], place: Vector, material: Material, *, weight: float = 1.0,
        **settings: Vector | bool,
    ) -> None:  # fmt: skip
        size, place = (tuple(s * value for value in each) for each in (size, place))
        touch = {"density": weight * density, "friction": friction, "bounce": bounce}
        world.geom(body, kind, size, material, position=place, **touch, **settings)

    part(ELLIPSOID, (0.30, 0.21, 0.185), (0, 0, 0), yellow)
    part(CYLINDER, (0.15, 0.02), (0, 0, -0.18), yellow, weight=14.0)
    part(SPHERE, (0.155,), (0.17, 0, 0.26), yellow)
    part(ELLIPSOID, (0.13, 0.13, 0.07), (-0.25, 0, 0.09), yellow, euler=(0, 35, 0))
    part(ELLIPSOID, (0.10, 0.075, 0.03), (0.33, 0, 0.235), beak)
    for sign in (-1, 1):
        part(ELLIPSOID, (0.16, 0.05, 0.10), (-0.04, sign * 0.185, 0.04), wing, euler=(0, -15, 0))
        part(SPHERE, (0.032,), (0.27, sign * 0.085, 0.315), dark, solid=False)


def tube(
    world: World, body: mujoco.MjsBody, center: Vector, radius: float, thick: float, material: Material, count: int,
    arc: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """A flat ring of `count` capsules, or an upright arc of one in the xz plane, from one angle to another, degrees."""
    angles = np.radians(np.linspace(*(arc or (0.0, 360.0)), count + 1))
    points = [np.array([math.cos(a), 0, math.sin(a)] if arc else [math.cos(a), math.sin(a), 0]) for a in angles]
    for here, there in pairwise(np.array(center) + radius * point for point in points):
        world.geom(body, CAPSULE, (thick / 2,), material, ends=(*here.tolist(), *there.tolist()))


def mug(world: World, base: Vector, height: float, *, heading: float = 0.0) -> None:
    """A standing mug, full of coffee, its handle toward +x turned left by `heading` degrees. It does not move."""
    body = world.body(base, euler=(0, 0, heading), fixed=True)
    radius = 0.36 * height
    clay = world.material(["spots", "stripes", "checker", "marble"], 0.2 * height, gloss=0.5)
    coffee = world.material(["marble"], 0.2 * height, ORANGE, saturation=0.7, value=0.25, gloss=0.6)
    world.geom(body, CYLINDER, (radius, 0.47 * height), clay, position=(0, 0, 0.47 * height))
    world.geom(body, CYLINDER, (0.93 * radius, 0.01), coffee, position=(0, 0, 0.94 * height))
    tube(world, body, (0, 0, 0.95 * height), 0.96 * radius, 0.09 * radius + 0.02, clay, count=28)
    tube(world, body, (radius, 0, 0.5 * height), 0.27 * height, 0.1 * height, clay, count=12, arc=(-90, 90))


def open_box(
    world: World, base: Vector, size: Vector, *, wall: float = 0.05, hue: float = 0.08,
    patterns: Sequence[str] = ("wood", "spots", "stripes"),
) -> None:  # fmt: skip
    """A box without a lid that stands still; size is outside (x, y, z)."""
    body = world.body(base, fixed=True)
    x, y, z = (length / 2 for length in size)
    card = world.material(patterns, 0.12, hue, saturation=0.5, value=0.7)
    world.geom(body, BOX, (x, y, wall / 2), card, position=(0, 0, wall / 2))
    for sign in (-1, 1):
        world.geom(body, BOX, (wall / 2, y, z), card, position=(sign * (x - wall / 2), 0, z))
        world.geom(body, BOX, (x, wall / 2, z), card, position=(0, sign * (y - wall / 2), z))


def basket(world: World, base: Vector, radius: float, height: float, slats: int = 18) -> None:
    """A round basket of leaning slats that stands still; `radius` is that of its opening."""
    body = world.body(base, fixed=True)
    straw = world.material(["stripes", "wood"], 0.1, 0.1, saturation=0.6, value=0.75)
    rim = world.material(["cubes"], 0.07, 0.03, saturation=0.7, value=0.6)
    lean, middle = math.degrees(math.atan2(0.28 * radius, height)), 0.86 * radius
    world.geom(body, CYLINDER, (0.72 * radius, 0.02), straw, position=(0, 0, 0.02))
    slat = (0.015, 0.75 * math.pi * radius / slats, height / 2)
    for angle in np.arange(slats) * 360 / slats:
        place = (middle * math.cos(math.radians(angle)), middle * math.sin(math.radians(angle)), height / 2)
        world.geom(body, BOX, slat, straw, euler=(0, lean, angle), position=place)
    tube(world, body, (0, 0, height), radius, 0.07, rim, count=24)


def juice_tray(world: World, base: Vector, size: Vector, *, hue: float) -> None:
    """A wide glass of juice. Things sink into the juice: it is only seen, the glass around it is solid."""
    open_box(world, base, size, wall=0.04, hue=0.5, patterns=["plain"])
    body = world.body(base, fixed=True)
    juice = world.material(["marble"], 0.25, hue, saturation=0.9, value=0.95, contrast=0.25, gloss=0.5, grain=0.2)
    x, y, z = (length / 2 for length in size)
    world.geom(body, BOX, (x - 0.041, y - 0.041, 0.36 * z), juice, position=(0, 0, 0.04 + 0.36 * z), solid=False)


def sculpture(world: World, base: Vector, h: float, *, heading: float = 0.0) -> None:
    """An abstract figure of rounded stones on a pedestal, `h` high. It does not move."""
    body = world.body(base, euler=(0, 0, heading), fixed=True)
    stone = world.material(["marble", "spots"], 0.25 * h, saturation=0.25, value=0.8, gloss=0.3)
    metal = world.material(["marble", "plain"], 0.2 * h, saturation=0.6, value=0.6, gloss=0.8)
    for kind, size, place, material, lean in (
        (BOX, (0.24 * h, 0.2 * h, 0.08 * h), (0, 0, 0.08 * h), stone, 0),
        (ELLIPSOID, (0.15 * h, 0.12 * h, 0.23 * h), (0.02 * h, 0, 0.36 * h), metal, 14),
        (ELLIPSOID, (0.21 * h, 0.11 * h, 0.11 * h), (-0.04 * h, 0, 0.62 * h), stone, -24),
        (SPHERE, (0.1 * h,), (0.07 * h, 0, 0.8 * h), metal, 0),
    ):
        world.geom(body, kind, size, material, position=place, euler=(0, lean, 0))
    arc = (world.uniform(-60, -30), world.uniform(200, 250))
    tube(world, body, (0.02 * h, 0, 0.62 * h), 0.32 * h, 0.07 * h, stone, count=20, arc=arc)
