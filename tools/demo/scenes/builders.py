"""The 21 scenes of Sim_Physics, by name. Each builder draws its own numbers, so every variation is a different clip.

The action spans the clip: a builder sets `World.duration`, the physical time from the first frame to the last one,
whatever the number of frames.
"""

from __future__ import annotations

from collections.abc import Callable

from . import falling, rolling, speeding, still
from .world import World

SCENES: dict[str, Callable[[World], None]] = {
    builder.__name__: builder
    for builder in (
        falling.ball_and_block_fall,
        rolling.ball_collide,
        rolling.ball_hits_duck,
        rolling.ball_hits_nothing,
        falling.ball_in_basket,
        rolling.ball_ramp,
        rolling.ball_rolls_off,
        rolling.ball_rolls_on_glass,
        rolling.ball_train,
        falling.block_domino,
        falling.domino_in_juice,
        falling.domino_with_space,
        falling.duck_and_domino,
        falling.duck_falls_in_box,
        still.duck_static,
        still.light_on_block,
        still.light_on_mug,
        still.light_on_mug_block,
        still.light_on_sculpture,
        rolling.roll_behind_box,
        rolling.roll_front_box,
    )
}

# Beside those: everything in them speeds up.
SPEEDING: dict[str, Callable[[World], None]] = {
    builder.__name__: builder
    for builder in (
        speeding.balls_drop,
        speeding.block_slides,
        speeding.domino_rows,
        speeding.growing_dominoes,
        speeding.poles_tip,
        speeding.stack_topples,
    )
}
