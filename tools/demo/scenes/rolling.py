"""Scenes in which balls roll. Metres; x right, y away from the camera, z up; the action lies near y = 0."""

from __future__ import annotations

from .figures import duck
from .props import ball, block, ramp, rolling_ball, room, standing_block
from .world import BOX, World


def ball_collide(world: World) -> None:
    """Two balls roll toward each other, meet in the middle and part again."""
    world.duration = 1.8
    room(world, (-1.0, -0.3, 0), (1.0, 0.3, 0.9))
    for side in (-1, 1):
        radius, speed = world.uniform(0.29, 0.36), world.uniform(0.65, 0.95)
        rolling_ball(world, side * 0.85, world.uniform(-0.06, 0.06), radius, -side * speed, bounce=0.9, friction=0.05)


def ball_hits_duck(world: World) -> None:
    """A ball rolls against a rubber duck and pushes it over the floor."""
    world.duration = 1.5
    room(world, (-0.95, -0.3, 0), (0.95, 0.3, 0.9))
    side, radius = world.side(), world.uniform(0.29, 0.35)
    y, velocity = world.uniform(-0.05, 0.05), side * world.uniform(1.1, 1.4)
    rolling_ball(world, -side * 0.75, y, radius, velocity, bounce=0.3, density=900)
    place, length = (side * world.uniform(0.1, 0.2), 0, 0), world.uniform(0.76, 0.86)
    duck(world, place, length, heading=world.uniform(0, 360), friction=0.12, density=60)


def ball_hits_nothing(world: World) -> None:
    """A ball rolls through the picture and passes everything that stands there."""
    world.duration = 1.8
    room(world, (-0.95, -0.4, 0), (0.95, 0.5, 0.9))
    side, radius = world.side(), world.uniform(0.32, 0.38)
    velocity = (side * world.uniform(0.75, 0.95), world.uniform(-0.04, 0.04), 0)
    ball(world, (-side * 0.8, -0.25, radius), radius, velocity=velocity, rolling=True)
    standing_block(world, world.vector(0.3, 0.5), world.uniform(-0.7, 0.7), 0.65, turn=40)


def ball_ramp(world: World) -> None:
    """A ball rolls down a ramp and on over the floor."""
    world.duration = 1.15
    side, angle = world.side(), world.uniform(22, 27)
    room(world, (-0.95, -0.35, 0), (0.95, 0.35, 1.05))
    top, along, normal = ramp(world, -side * 0.95, side, angle, 1.3, patterns=["wood", "stripes", "checker"])
    block(world, (top[0] + side * 0.08, 0, 0.4 * top[2]), (0.12, 0.7, 0.8 * top[2]), fixed=True)
    radius = world.uniform(0.27, 0.33)
    place, velocity = top + along * 0.25 + normal * (radius + 0.002), world.uniform(0.3, 0.6) * along
    ball(world, tuple(place), radius, velocity=tuple(velocity), rolling=True)


def ball_rolls_off(world: World) -> None:
    """A ball rolls off a table's edge, falls and bounces."""
    world.duration = 1.2
    side, high = world.side(), world.uniform(0.55, 0.65)
    room(world, (-0.9, -0.35, 0), (0.95, 0.35, 1.2))
    block(world, (-side * 0.6, 0, high / 2), (1.15, 0.8, high), fixed=True, patterns=["wood", "checker", "bricks"])
    radius, y, velocity = world.uniform(0.27, 0.33), world.uniform(-0.08, 0.08), side * world.uniform(1.0, 1.25)
    rolling_ball(world, -side * 0.55, y, radius, velocity, base=high, bounce=0.75)


def ball_rolls_on_glass(world: World) -> None:
    """A ball rolls along a glass plate that lies on two blocks."""
    world.duration = 1.8
    side, high = world.side(), world.uniform(0.3, 0.4)
    room(world, (-1.0, -0.4, 0), (1.0, 0.4, 1.0), elevation=20)
    for x in (-0.75, 0.75):
        block(world, (x, 0, high / 2), (0.25, 0.7, high), fixed=True)
    plate = world.body((0, 0, high + 0.025), fixed=True)
    glass = world.material(["marble"], 0.5, 0.5, saturation=0.35, value=0.85, contrast=0.25, gloss=0.9, grain=0.15)
    world.geom(plate, BOX, (1.0, 0.42, 0.025), glass)
    radius, y, velocity = world.uniform(0.3, 0.37), world.uniform(-0.1, 0.1), side * world.uniform(0.7, 0.85)
    rolling_ball(world, -side * 0.75, y, radius, velocity, base=high + 0.05)


def ball_train(world: World) -> None:
    """A ball rolls into a row of balls, and the blow runs through the row to the last one."""
    world.duration = 1.5
    side, radius, speed = world.side(), world.uniform(0.22, 0.25), world.uniform(1.1, 1.4)
    room(world, (-1.0, -0.3, 0), (1.0, 0.3, 0.85), elevation=24)
    for index in range(3):
        x = side * (-0.15 + index * (2 * radius + 0.02))
        rolling_ball(world, x, 0, radius, 0, bounce=0.8, friction=0.3)
    rolling_ball(world, -side * 0.95, 0, radius, side * speed, bounce=0.8, friction=0.3, density=900)


def roll_behind_box(world: World) -> None:
    """A ball rolls behind a box, is hidden, and comes out on the other side."""
    _roll_past_box(world, ball_y=0.65, box_y=0.0, reach=0.95)


def roll_front_box(world: World) -> None:
    """A ball rolls past in front of a box and covers a part of it."""
    _roll_past_box(world, ball_y=-0.35, box_y=0.3, reach=0.75)


def _roll_past_box(world: World, ball_y: float, box_y: float, reach: float) -> None:
    world.duration = 1.9
    side, radius = world.side(), world.uniform(0.31, 0.37)
    room(world, (-0.9, -0.2, 0), (0.9, 0.2, 0.95), elevation=11, turn=10, gap=1.2)
    size = (world.uniform(0.5, 0.62), 0.35, world.uniform(0.75, 0.9))
    standing_block(world, size, world.uniform(-0.1, 0.1), box_y, turn=8, patterns=["wood", "checker", "bricks"])
    velocity = side * world.uniform(0.9, 1.05) * 2 * reach / world.duration
    rolling_ball(world, -side * reach, ball_y, radius, velocity)
