"""The room around a scene, and the simple things in it: balls, blocks, dominoes.

Every function adds to a `World`; positions are those of the thing's middle for balls and blocks, and of the middle of
its base for everything that stands. Sizes are full lengths in metres (MuJoCo's own are half lengths).
"""

from __future__ import annotations

import math

from .world import BOX, PLANE, SPHERE, Light, Vector, View, World

BALL_PATTERNS = ["sectors", "cubes", "spots", "stripes", "marble"]
BLOCK_PATTERNS = ["checker", "wood", "marble", "spots", "cubes"]
DOMINO_PATTERNS = ["checker", "spots", "marble", "wood"]


def room(
    world: World, low: Vector, high: Vector, *, elevation: float = 16.0, turn: float = 22.0, gap: float = 0.7
) -> None:
    """Floor, backdrop, sky, light and a camera that sees the box `low`..`high` from in front, turned at most `turn`.

    gap: metres between the box and the wall behind it. A third of the rooms have no wall, and show the sky.
    One lens films all scenes: with a field of view that changes from scene to scene no picture tells how far away
    things are.
    """
    world.view = View(low, high, world.uniform(-turn, turn), elevation * world.uniform(0.7, 1.6))
    world.light = Light(
        *[(world.side() * world.uniform(1.2, 3.0), world.uniform(-3.5, -1.5), world.uniform(3.2, 4.8))] * 2,
        strength=world.uniform(0.75, 0.95),
        ambient=world.uniform(0.3, 0.42),
    )
    backdrop = world.choice(["wall", "fence", "open"])
    hue = world.uniform(0, 1)
    calm = {
        "saturation": world.uniform(0.1, 0.4),
        "value": world.uniform(0.55, 0.8),
        "contrast": world.uniform(0.25, 0.4),
        "gloss": 0.04,
    }
    reach = 2.2 + max(abs(value) for value in (*low, *high))
    depth = high[1] + gap if backdrop != "open" else reach
    floor = world.material(["tiles", "checker", "wood", "spots", "marble"], world.uniform(0.3, 0.5), hue, **calm)
    world.geom(
        world.spec.worldbody,
        PLANE,
        (3 * reach, (depth + 3 * reach) / 2, 0.1),
        floor,
        position=(0, (depth - 3 * reach) / 2, 0),
    )
    if backdrop != "open":
        tall = 3 * high[2] + 3 if backdrop == "wall" else world.uniform(0.45, 0.8) * high[2]
        wall = world.material(
            ["bricks", "tiles", "spots", "wood", "checker"],
            world.uniform(0.35, 0.6),
            hue + world.uniform(0.2, 0.8),
            **calm,
        )
        world.geom(world.spec.worldbody, BOX, (3 * reach, 0.05, tall / 2), wall, position=(0, depth + 0.05, tall / 2))
    sunset = world.uniform(0, 1)
    world.sky = (
        (0.18 + 0.2 * sunset, 0.36, 0.8 - 0.3 * sunset),
        (0.75 + 0.1 * sunset, 0.8 - 0.15 * sunset, 0.9 - 0.4 * sunset),
    )


def ball(
    world: World,
    position: Vector,
    radius: float,
    *,
    velocity: Vector = (0, 0, 0),
    rolling: bool = False,
    bounce: float = 0.5,
    friction: float = 0.5,
    density: float = 400.0,
) -> None:
    """rolling: it turns as it travels, as a ball on the floor does, from the first frame on."""
    x, y, _ = velocity
    spin = (-y / radius, x / radius, 0.0) if rolling else tuple(world.rng.uniform(-2, 2, 3))
    body = world.body(position, euler=tuple(world.rng.uniform(-180, 180, 3)), velocity=velocity, spin=spin)
    world.geom(
        body,
        SPHERE,
        (radius,),
        world.material(BALL_PATTERNS, radius * world.uniform(0.5, 0.7), gloss=0.3),
        bounce=bounce,
        friction=friction,
        density=density,
    )


def block(
    world: World,
    position: Vector,
    size: Vector,
    *,
    euler: Vector = (0, 0, 0),
    velocity: Vector = (0, 0, 0),
    spin: Vector = (0, 0, 0),
    fixed: bool = False,
    friction: float = 0.5,
    bounce: float | None = None,
    density: float = 400.0,
    patterns: list[str] | None = None,
) -> None:
    body = world.body(position, euler=euler, velocity=velocity, spin=spin, fixed=fixed)
    material = world.material(patterns or BLOCK_PATTERNS, min(size) * world.uniform(0.35, 0.5))
    world.geom(
        body, BOX, tuple(length / 2 for length in size), material, friction=friction, bounce=bounce, density=density
    )


def domino_row(
    world: World,
    places: list[float],
    *,
    toward: int,
    height: float = 0.75,
    pushed: bool = True,
    y: float = 0.0,
    base: float = 0.0,
    friction: float = 0.5,
) -> None:
    """Dominoes at the x of `places`, and at y, which fall toward +x (`toward` 1) or -x (-1). The first one already
    tips if it is `pushed`.
    """
    hue = world.uniform(0, 1)
    thick, wide = 0.17 * height, 0.56 * height
    for index, x in enumerate(places):
        tilt, spin = (17.0, 4.5) if pushed and index == 0 else (0.0, 0.0)
        angle = math.radians(tilt)
        # Tipped about its lower edge, which stays on the floor.
        lean = toward * (height / 2 * math.sin(angle) - thick / 2 * (math.cos(angle) - 1))
        rise = height / 2 * math.cos(angle) + thick / 2 * math.sin(angle)
        body = world.body((x + lean, y, base + rise), euler=(0, toward * tilt, 0), spin=(0, toward * spin, 0))
        material = world.material(DOMINO_PATTERNS, wide * world.uniform(0.3, 0.42), hue + 0.13 * index, gloss=0.3)
        world.geom(body, BOX, (thick / 2, wide / 2, height / 2), material, density=500.0, friction=friction)


def spaced(first: float, step: float, count: int) -> list[float]:
    return [first + step * index for index in range(count)]
