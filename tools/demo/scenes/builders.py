"""The scenes, by name: every function of a family's file whose name does not begin with `_` is one.

It draws its own numbers, so every variation is a different clip, and sets `World.duration`, the physical time from the
first frame to the last one, whatever the number of frames.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

from . import falling, rolling, speeding, still
from .world import World


def _builders(*families: ModuleType) -> dict[str, Callable[[World], None]]:
    found = [each for family in families for each in vars(family).items() if inspect.isfunction(each[1])]
    own = {module.__name__ for module in families}
    return {name: builder for name, builder in sorted(found) if builder.__module__ in own and name[0] != "_"}


SCENES = _builders(falling, rolling, still)  # the 21 of Sim_Physics
SPEEDING = _builders(speeding)  # beside those: everything in them speeds up
