"""Scenes in which nothing moves, or only the light does: the pictures change, and all motion is zero."""

from __future__ import annotations

from .figures import duck, mug, sculpture
from .props import room, standing_block
from .world import Light, World


def duck_static(world: World) -> None:
    """A rubber duck stands there. Nothing moves."""
    room(world, (-0.5, -0.4, 0), (0.5, 0.4, 0.75), turn=35)
    duck(world, (world.uniform(-0.1, 0.1), 0, 0), world.uniform(0.75, 0.9), heading=world.uniform(0, 360), fixed=True)


def light_on_block(world: World) -> None:
    """A light wanders over a block. Nothing else moves."""
    _wandering_light(world, height=0.7)
    standing_block(world, world.vector(0.45, 0.65), 0, 0, turn=45)


def light_on_mug(world: World) -> None:
    """A light wanders over a mug. Nothing else moves."""
    _wandering_light(world, height=0.75)
    mug(world, (world.uniform(-0.1, 0.1), 0, 0), world.uniform(0.65, 0.75), heading=_sideways(world, world.side()))


def light_on_mug_block(world: World) -> None:
    """A light wanders over a mug and a block. Nothing else moves."""
    _wandering_light(world, height=0.75)
    side = world.side()
    mug(world, (side * 0.36, -0.05, 0), world.uniform(0.55, 0.62), heading=_sideways(world, side))
    standing_block(world, world.vector(0.38, 0.5), -side * 0.36, 0.1, turn=45)


def light_on_sculpture(world: World) -> None:
    """A light wanders over a sculpture. Nothing else moves."""
    _wandering_light(world, height=1.05)
    sculpture(world, (0, 0, 0), world.uniform(1.0, 1.1), heading=world.uniform(-35, 35))


def _sideways(world: World, side: int) -> float:
    """A heading that shows a handle in profile: to the picture's right (side 1) or left (-1)."""
    return world.view.azimuth + (0 if side > 0 else 180) + world.uniform(-30, 30)


def _wandering_light(world: World, height: float) -> None:
    """A dim room and a spot light that swings from one side to the other."""
    world.duration = 2.0
    half = max(0.7, 0.6 * height)
    room(world, (-half, -0.4, 0), (half, 0.4, height), turn=30)
    side, up = world.side(), world.uniform(1.8, 2.4)
    start = (-side * world.uniform(1.5, 2.2), world.uniform(-2.2, -1.2), up)
    stop = (side * world.uniform(1.5, 2.2), world.uniform(-2.2, -1.2), up + world.uniform(-0.4, 0.4))
    target, angle = (0, 0, 0.4 * height), world.uniform(22, 28)
    world.light = Light(start, stop, strength=1.15, ambient=0.16, spot_target=target, spot_angle=angle)
