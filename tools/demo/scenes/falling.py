"""Scenes in which things fall: from above, or as dominoes. Metres; x right, y away from the camera, z up."""

from __future__ import annotations

import numpy as np

from .figures import basket, duck, juice_tray, open_box
from .props import ball, block, domino_row, room, spaced
from .world import World

GRAVITY = 9.81


def ball_and_block_fall(world: World) -> None:
    """A ball and a block fall beside each other; the ball bounces, the block tumbles and comes to rest."""
    world.duration = 1.0
    room(world, (-0.8, -0.3, 0), (0.8, 0.3, 1.35))
    side, radius = world.side(), world.uniform(0.24, 0.29)
    place, velocity = (side * 0.4, 0, world.uniform(0.9, 1.05)), (side * world.uniform(0, 0.3), 0, 0)
    ball(world, place, radius, velocity=velocity, bounce=0.8)
    size, place = world.vector(0.36, 0.5), (-side * 0.4, 0, world.uniform(0.9, 1.05))
    turned, velocity = world.vector(-35, 35), (-side * world.uniform(0, 0.3), 0, 0)
    block(world, place, size, euler=turned, velocity=velocity, spin=world.vector(-2.5, 2.5), bounce=0.4)


def ball_in_basket(world: World) -> None:
    """A ball flies in an arc into a basket."""
    world.duration = 0.95
    side, radius, height = world.side(), world.uniform(0.27, 0.31), world.uniform(0.5, 0.58)
    opening, target = world.uniform(0.5, 0.55), side * world.uniform(0.3, 0.4)
    room(world, (-0.9, -0.4, 0), (0.9, 0.4, 1.35), elevation=22)
    basket(world, (target, 0, 0), opening, height)
    start, seconds = np.array([-side * 0.75, 0, world.uniform(0.6, 0.75)]), world.uniform(0.58, 0.66)
    goal = np.array([target, 0, height])
    velocity = (goal - start) / seconds + np.array([0, 0, GRAVITY * seconds / 2])
    ball(world, tuple(start), radius, velocity=tuple(velocity), bounce=0.45)


def duck_falls_in_box(world: World) -> None:
    """A rubber duck falls into an open box."""
    world.duration = 0.85
    room(world, (-0.75, -0.4, 0), (0.75, 0.4, 1.5), elevation=24)
    open_box(world, (0, 0, 0), (world.uniform(1.15, 1.3), 0.95, world.uniform(0.4, 0.5)))
    place, length = (world.uniform(-0.12, 0.12), 0, world.uniform(0.75, 0.85)), world.uniform(0.68, 0.76)
    heading, tilt = world.uniform(0, 360), world.vector(-25, 25)
    duck(world, place, length, heading=heading, tilt=tilt, spin=world.vector(-2, 2), bounce=0.5)


def block_domino(world: World) -> None:
    """A block slides into a row of dominoes and knocks it over."""
    world.duration = 1.2
    side, height, step = world.side(), world.uniform(0.66, 0.76), world.uniform(0.3, 0.34)
    room(world, (-0.95, -0.3, 0), (1.05, 0.3, 0.95))
    domino_row(world, spaced(-0.35, step, 4, side), toward=side, height=height, pushed=False)
    edge = world.uniform(0.42, 0.48)
    place, velocity = (-side * 0.85, 0, edge / 2), (side * world.uniform(2.0, 2.4), 0, 0)
    block(world, place, (edge, edge, edge), velocity=velocity, friction=0.15, density=900)


def domino_in_juice(world: World) -> None:
    """A row of dominoes falls; the last one drops from its bench into a tray of juice."""
    world.duration = 1.15
    side, height, high = world.side(), world.uniform(0.62, 0.7), 0.4
    room(world, (-1.0, -0.35, 0), (1.0, 0.35, 1.2), elevation=24)
    block(world, (-side * 0.5, 0, high / 2), (1.1, 0.6, high), fixed=True, patterns=["wood", "bricks", "checker"])
    domino_row(world, spaced(-0.92, 0.29, 4, side), toward=side, height=height, base=high, friction=0.25)
    juice_tray(world, (side * 0.6, 0, 0), (1.0, 0.85, 0.36), hue=world.choice([0.07, 0.0, 0.93, 0.3]))


def domino_with_space(world: World) -> None:
    """A row of dominoes with a gap: the first part falls, the part behind the gap stays up."""
    world.duration = 1.15
    side, height, step = world.side(), world.uniform(0.62, 0.7), world.uniform(0.29, 0.32)
    room(world, (-1.0, -0.3, 0), (1.0, 0.3, 0.9))
    domino_row(world, spaced(-0.98, step, 4, side), toward=side, height=height)
    behind_gap = -0.98 + 3 * step + 1.3 * height
    domino_row(world, [side * behind_gap], toward=side, height=height, pushed=False)


def duck_and_domino(world: World) -> None:
    """A row of dominoes falls against a rubber duck."""
    world.duration = 0.95
    side, height, step = world.side(), world.uniform(0.66, 0.74), world.uniform(0.32, 0.36)
    room(world, (-1.0, -0.3, 0), (1.0, 0.3, 0.95))
    domino_row(world, spaced(-0.92, step, 3, side), toward=side, height=height)
    place, length = (side * (-0.92 + 2 * step + 0.66), 0, 0), world.uniform(0.66, 0.74)
    heading = world.choice([0, 180]) + world.uniform(-20, 20)
    duck(world, place, length, heading=heading, density=40, friction=0.12)
