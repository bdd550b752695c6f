"""Scenes in which everything speeds up until the last frame. Metres; x right, y away from the camera, z up.

They are not among the scenes to train on: with them the dataset check shows that it does not take speeding up for files
that are shifted by a frame.
"""

from __future__ import annotations

import math

from .props import ball, block, domino_row, ramp, room, spaced, tipped
from .world import World


def balls_drop(world: World) -> None:
    """Three balls are let go one above the other, and have not reached the floor by the last frame."""
    world.duration = 0.42
    room(world, (-0.8, -0.3, 0), (0.8, 0.3, 1.6))
    for x in (-0.5, 0.0, 0.5):
        radius = world.uniform(0.15, 0.21)
        ball(world, (x, world.uniform(-0.2, 0.2), world.uniform(1.15, 1.4)), radius)


def block_slides(world: World) -> None:
    """A block slides down a steep, smooth ramp, from rest."""
    world.duration = 0.62
    side, angle = world.side(), world.uniform(30, 36)
    room(world, (-0.9, -0.35, 0), (0.9, 0.35, 1.2))
    edge = world.uniform(0.26, 0.34)
    top, along, normal = ramp(world, -side * 0.8, side, angle, 1.6, friction=0.02)
    start = top + along * 0.2 + normal * (edge / 2 + 0.003)
    block(world, tuple(start), (edge, edge, edge), euler=(0, side * angle, 0), friction=0.02)


def domino_rows(world: World) -> None:
    """Two rows of dominoes fall toward each other's side, and more and more of them are falling at once."""
    world.duration = 0.8
    room(world, (-1.0, -0.5, 0), (1.0, 0.5, 0.8), elevation=24)
    height, step = world.uniform(0.4, 0.46), world.uniform(0.17, 0.19)
    for side in (-1, 1):
        domino_row(world, spaced(-0.8, step, 9, side), toward=side, height=height, y=side * 0.3)


def growing_dominoes(world: World) -> None:
    """Each domino knocks over a larger one."""
    world.duration = 1.05
    room(world, (-1.0, -0.35, 0), (1.2, 0.35, 1.0))
    side, height, x = world.side(), 0.42, -0.95
    for index in range(6):
        domino_row(world, [side * x], toward=side, height=height, pushed=index == 0)
        x, height = x + 0.52 * height, height * world.uniform(1.06, 1.1)


def poles_tip(world: World) -> None:
    """Three tall poles tip over sideways, slowly at first."""
    world.duration = 0.72
    room(world, (-1.0, -0.4, 0), (1.0, 0.4, 1.1))
    side = world.side()
    for x in (-0.6, 0.0, 0.6):
        height, tilt = world.uniform(0.8, 1.0), math.radians(world.uniform(9, 14))
        lean, rise = tipped(height, 0.14, tilt)
        turned, spin = (0, side * math.degrees(tilt), 0), (0, side * world.uniform(0.6, 1.0), 0)
        place = (side * (x - 0.25) + side * lean, world.uniform(-0.3, 0.3), rise)
        block(world, place, (0.14, 0.2, height), euler=turned, spin=spin, friction=1.0, patterns=["plain"])


def stack_topples(world: World) -> None:
    """A stack of blocks that leans too far topples toward the camera or away from it, and to a side."""
    world.duration = 0.6
    room(world, (-0.8, -0.4, 0), (0.8, 0.4, 1.25))
    side, edge, shift = world.side(), world.uniform(0.28, 0.33), world.uniform(0.12, 0.15)
    forward = world.uniform(-0.07, 0.07)
    for index in range(4):
        place = (side * (shift * index - 0.2), forward * index, (index + 0.5) * (edge + 0.001))
        block(world, place, (edge, edge, edge), friction=0.9)
