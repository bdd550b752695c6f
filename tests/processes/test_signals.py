"""The agreement of all processes on when to stop."""

from datetime import timedelta

import pytest

from motion_depth.processes import signals as stopping
from motion_depth.processes.signals import Stopping


@pytest.mark.parametrize("minutes", [0.1, 90.0])
def test_the_group_that_agrees_waits_as_long_as_every_other(monkeypatch, minutes):
    """Beside NCCL it is a group of its own; its default would be half an hour, whatever the run says."""
    made: list[dict] = []
    monkeypatch.setattr(stopping.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(stopping.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(stopping.distributed, "new_group", lambda **settings: made.append(settings))
    Stopping(timeout_minutes=minutes).between_iterations()
    assert made == [{"backend": "gloo", "timeout": timedelta(minutes=minutes)}]
