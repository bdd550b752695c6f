"""The room around a scene, and the simple things in it: balls, blocks, ramps, dominoes.

Every function adds to a `World`; positions are those of the thing's middle for balls and blocks, and of the middle of
its base for everything that stands. Sizes are full lengths in metres (MuJoCo's own are half lengths).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .world import BOX, PLANE, SPHERE, Light, Vector, View, World

BALL_PATTERNS = ("sectors", "cubes", "spots", "stripes", "marble")
BLOCK_PATTERNS = ("checker", "wood", "marble", "spots", "cubes")
DOMINO_PATTERNS = ("checker", "spots", "marble", "wood")


def room(
    world: World, low: Vector, high: Vector, *, elevation: float = 16.0, turn: float = 22.0, gap: float = 0.7
) -> None:
    """Floor, backdrop, sky, light and a camera that sees the box `low`..`high` from in front, turned at most `turn`.

    gap: metres between the box and the wall behind it. A third of the rooms have no wall, and show the sky.
    One lens films all scenes: with a field of view that changes from scene to scene no picture tells how far away
    things are.
    """
    world.view = View(low, high, world.uniform(-turn, turn), elevation * world.uniform(0.7, 1.6))
    place = (world.side() * world.uniform(1.2, 3.0), world.uniform(-3.5, -1.5), world.uniform(3.2, 4.8))
    world.light = Light(place, place, strength=world.uniform(0.75, 0.95), ambient=world.uniform(0.3, 0.42))
    backdrop, hue = world.choice(["wall", "fence", "open"]), world.uniform(0, 1)
    calm = {"saturation": world.uniform(0.1, 0.4), "value": world.uniform(0.55, 0.8)}
    calm |= {"contrast": world.uniform(0.25, 0.4), "gloss": 0.04}
    reach = 2.2 + max(abs(value) for value in (*low, *high))
    depth = high[1] + gap if backdrop != "open" else reach
    floor = world.material(["tiles", "checker", "wood", "spots", "marble"], world.uniform(0.3, 0.5), hue, **calm)
    size, middle = (3 * reach, (depth + 3 * reach) / 2, 0.1), (0, (depth - 3 * reach) / 2, 0)
    world.geom(world.spec.worldbody, PLANE, size, floor, position=middle)
    if backdrop != "open":
        tall = 3 * high[2] + 3 if backdrop == "wall" else world.uniform(0.45, 0.8) * high[2]
        patterns = ["bricks", "tiles", "spots", "wood", "checker"]
        wall = world.material(patterns, world.uniform(0.35, 0.6), hue + world.uniform(0.2, 0.8), **calm)
        world.geom(world.spec.worldbody, BOX, (3 * reach, 0.05, tall / 2), wall, position=(0, depth + 0.05, tall / 2))
    sunset = world.uniform(0, 1)
    zenith = (0.18 + 0.2 * sunset, 0.36, 0.8 - 0.3 * sunset)
    world.sky = zenith, (0.75 + 0.1 * sunset, 0.8 - 0.15 * sunset, 0.9 - 0.4 * sunset)


def ball(
    world: World, position: Vector, radius: float, *, velocity: Vector = (0, 0, 0), rolling: bool = False,
    bounce: float = 0.5, friction: float = 0.5, density: float = 400.0,
) -> None:  # fmt: skip
    """rolling: it turns as it travels, as a ball on the floor does, from the first frame on."""
    x, y, _ = velocity
    spin = (-y / radius, x / radius, 0.0) if rolling else world.vector(-2, 2)
    body = world.body(position, euler=world.vector(-180, 180), velocity=velocity, spin=spin)
    material = world.material(BALL_PATTERNS, radius * world.uniform(0.5, 0.7), gloss=0.3)
    world.geom(body, SPHERE, (radius,), material, bounce=bounce, friction=friction, density=density)


def rolling_ball(
    world: World, x: float, y: float, radius: float, velocity: float, *, base: float = 0.0, **settings: float
) -> None:
    """A `ball` that rolls along x, on a floor at the height `base`."""
    ball(world, (x, y, base + radius), radius, velocity=(velocity, 0, 0), rolling=True, **settings)


def block(
    world: World, position: Vector, size: Vector, *, patterns: Sequence[str] = BLOCK_PATTERNS, friction: float = 0.5,
    bounce: float | None = None, density: float = 400.0, **start: Vector | bool,
) -> None:  # fmt: skip
    """start: how it is turned, moves and spins, or that it is fixed, see `World.body`."""
    body = world.body(position, **start)
    material, half = world.material(patterns, min(size) * world.uniform(0.35, 0.5)), tuple(side / 2 for side in size)
    world.geom(body, BOX, half, material, friction=friction, bounce=bounce, density=density)


def standing_block(world: World, size: Vector, x: float, y: float, turn: float, **settings: Sequence[str]) -> None:
    """A fixed `block` on the floor, turned by at most `turn` degrees."""
    heading = world.uniform(-turn, turn)
    block(world, (x, y, size[2] / 2), size, euler=(0, 0, heading), fixed=True, **settings)


def ramp(
    world: World, x: float, toward: int, angle: float, length: float, **settings: float | Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A fixed `block` whose top goes down from x toward +x (`toward` 1) or -x (-1), by `angle` degrees, to the floor.

    -> the top's upper end, and the directions down the slope and off it, (3,) each.
    """
    cos, sin, thick = math.cos(math.radians(angle)), math.sin(math.radians(angle)), 0.1
    along, normal = np.array([toward * cos, 0, -sin]), np.array([toward * sin, 0, cos])
    top = np.array([x, 0, -length * along[2]])
    middle = top + along * length / 2 - normal * thick / 2
    block(world, tuple(middle), (length, 0.8, thick), euler=(0, toward * angle, 0), fixed=True, **settings)
    return top, along, normal


def tipped(height: float, thick: float, radians: float) -> tuple[float, float]:
    """Of a thing that is tipped about its lower edge, which stays: how far its middle leans, and how high it is."""
    sin, cos = math.sin(radians), math.cos(radians)
    return height / 2 * sin + thick / 2 * (1 - cos), height / 2 * cos + thick / 2 * sin


def domino_row(
    world: World, places: Sequence[float], *, toward: int, height: float, pushed: bool = True, y: float = 0.0,
    base: float = 0.0, friction: float = 0.5,
) -> None:  # fmt: skip
    """Dominoes at the x of `places`, and at y, which fall toward +x (`toward` 1) or -x (-1). The first one already
    tips if it is `pushed`.
    """
    hue = world.uniform(0, 1)
    thick, wide = 0.17 * height, 0.56 * height
    for index, x in enumerate(places):
        tilt, spin = (17.0, 4.5) if pushed and index == 0 else (0.0, 0.0)
        lean, rise = tipped(height, thick, math.radians(tilt))
        place = (x + toward * lean, y, base + rise)
        body = world.body(place, euler=(0, toward * tilt, 0), spin=(0, toward * spin, 0))
        material = world.material(DOMINO_PATTERNS, wide * world.uniform(0.3, 0.42), hue + 0.13 * index, gloss=0.3)
        world.geom(body, BOX, (thick / 2, wide / 2, height / 2), material, density=500.0, friction=friction)


def spaced(first: float, step: float, count: int, toward: int = 1) -> list[float]:
    """The x of things that stand `step` apart, from `first` on; -1: all of it mirrored."""
    return [toward * (first + step * index) for index in range(count)]
