"""A whole tiny model, and the library's table of models as it was."""

from pathlib import Path

import pytest
from diffsynth.configs import MODEL_CONFIGS

from motion_depth.tiny import model as tiny
from motion_depth.tiny.vae import fit_vae
from tests.support.moving_squares import windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A whole tiny model."""
    path = tmp_path_factory.mktemp("tiny")
    tiny.write_tiny_wan(path, fit_vae(windows()), tiny.dit_arguments(), seed=0)
    return path


@pytest.fixture(autouse=True)
def library_table():
    """Every test finds and leaves the library's table of models as it was."""
    before, registered = list(MODEL_CONFIGS), dict(tiny._registered)
    MODEL_CONFIGS[:] = [config for config in before if config not in registered.values()]
    tiny._registered.clear()
    yield
    MODEL_CONFIGS[:] = before
    tiny._registered.clear()
    tiny._registered.update(registered)
