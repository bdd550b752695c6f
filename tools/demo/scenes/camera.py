"""The camera of a recorded scene: from pixels to rays, and from the world to pixels.

Axis legend: n points, 2 x/y in pixels, 3 x/y/z in metres. A pixel's centre lies at its integer coordinates.
"""

from __future__ import annotations

import math

import numpy as np

from .recording import Recording


class Camera:
    """A pinhole of a picture's size.

    Attributes:
        focal: in pixels.
        pixels: (height * width, 2), the centres of all pixels, row by row.
    """

    def __init__(self, recording: Recording, height: int, width: int) -> None:
        self.recording, self.height, self.width = recording, height, width
        self.focal = 0.5 * min(height, width) / math.tan(math.radians(recording.fov / 2))
        rows, columns = np.mgrid[:height, :width].reshape(2, -1)
        self.pixels = np.stack([columns, rows], axis=1).astype(float)

    def position(self, index: int) -> np.ndarray:
        """(3,) in frame `index`."""
        return self.recording.camera_position[index]

    def directions(self, index: int, pixels: np.ndarray) -> np.ndarray:
        """Unit rays (n,3) in the world through pixels (n,2)."""
        middle = np.array([self.width - 1, self.height - 1]) / 2
        rays = np.concatenate([(pixels - middle) / self.focal, np.ones((len(pixels), 1))], axis=1)
        rays = rays @ self.recording.camera_rotation[index]
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def project(self, index: int, vectors: np.ndarray) -> np.ndarray:
        """World vectors from the camera (n,3) -> (n,2) image coordinates from the picture's middle."""
        right, down, forward = (vectors @ self.recording.camera_rotation[index].T).T
        return self.focal * np.stack([right, down], axis=1) / forward[:, None]

    def image(self, values: np.ndarray) -> np.ndarray:
        """The axis of length height * width, wherever it stands, to height, width."""
        axis = values.shape.index(self.height * self.width)
        return values.reshape(*values.shape[:axis], self.height, self.width, *values.shape[axis + 1 :])
