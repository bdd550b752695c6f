"""Physics scenes from MuJoCo: `simulate` one, and let a `SceneRenderer` give its frames and its exact motion."""

from .builders import SCENES, SPEEDING
from .recording import CAMERAS, Recording, simulate
from .render import Frame, SceneRenderer

__all__ = ["CAMERAS", "SCENES", "SPEEDING", "Frame", "Recording", "SceneRenderer", "simulate"]
