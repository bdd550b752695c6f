"""The quantities that are predicted. A further one is a file of its own and a line in this table."""

from motion_depth.readouts.depth import Depth
from motion_depth.readouts.motion import Motion
from motion_depth.readouts.readout import Readout

__all__ = ["READOUTS", "Readout"]

# Everything that goes over quantities goes over this table, in this order.
READOUTS: dict[str, Readout] = {readout.name: readout for readout in (Motion(), Depth())}
