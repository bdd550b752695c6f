"""Physics scenes from MuJoCo: `simulate` one, and let a `SceneRenderer` give its frames and its exact motion."""

from .builders import SCENES
from .recording import CAMERAS, Recording, simulate
from .render import Frame, SceneRenderer

__all__ = ["CAMERAS", "SCENES", "Frame", "Recording", "SceneRenderer", "simulate"]
