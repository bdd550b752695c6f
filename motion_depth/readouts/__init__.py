"""The quantities that are predicted. A further one is a file of its own and a line in this table."""

from motion_depth.data.scene import KINDS
from motion_depth.readouts.depth import Depth
from motion_depth.readouts.motion import Motion
from motion_depth.readouts.readout import Readout

__all__ = ["READOUTS", "Readout", "further_kinds"]

# Everything that goes over quantities goes over this table, in this order.
READOUTS: dict[str, Readout] = {readout.name: readout for readout in (Motion(), Depth())}


def further_kinds() -> tuple[str, ...]:
    """What a scene must hold beside pictures, motion and depth."""
    kinds = [kind for readout in READOUTS.values() for kind in readout.kinds if kind not in KINDS]
    return tuple(dict.fromkeys(kinds))
