"""How a backbone divides a video into latents and tokens: plain numbers, which every part may know.

Time layout: latent 0 is frame 0, latent k is frames nk - n + 1 .. nk, with n frames in a latent; so a clip has nk + 1.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentLayout:
    """A backbone's numbers.

    Attributes:
        stride: pixels along a side of a latent.
        patch: latents along a side of a token.
        frames_per_latent: frames of every latent but the first, which is one frame.
        channels: of a latent.
        text_tokens: length to which a prompt is padded.
    """

    stride: int
    patch: int
    frames_per_latent: int
    channels: int
    text_tokens: int

    @property
    def token_stride(self) -> int:
        """Pixels along a side of a token; a clip's height and width are multiples of it."""
        return self.stride * self.patch

    def num_latents(self, num_frames: int) -> int:
        return 1 + (num_frames - 1) // self.frames_per_latent

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(c, f, height / stride, width / stride) of a clip."""
        return self.channels, self.num_latents(num_frames), height // self.stride, width // self.stride

    def token_grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(f, h, w) of a clip's tokens."""
        return self.num_latents(num_frames), height // self.token_stride, width // self.token_stride

    def longest_clip(self, frames: int) -> int:
        """The most of so many frames that a clip can have."""
        return max(0, frames - 1) // self.frames_per_latent * self.frames_per_latent + 1

    def check_frames(self, num_frames: object) -> None:
        """Raises ValueError, which names the flag, for a number of frames that a clip cannot have."""
        n = self.frames_per_latent
        if not is_integer(num_frames) or num_frames < 1 + n or num_frames % n != 1 % n:
            examples = f"{1 + n}, {1 + 2 * n}, ..., {1 + 12 * n}, ..., {1 + 20 * n}, ..."
            raise ValueError(f"--num_frames: found {num_frames!r}, expected {n}k+1: {examples}")

    def check_size(self, height: object, width: object) -> None:
        """Raises ValueError, which names the flag and the nearest sizes, for a size that a clip cannot have."""
        step = self.token_stride
        for name, pixels in (("height", height), ("width", width)):
            if not is_integer(pixels) or pixels <= 0 or pixels % step:
                below = max(0, pixels) // step * step if is_integer(pixels) else 0
                nearest = f"{below} or {below + step}" if below else f"at least {step}"
                raise ValueError(
                    f"--{name}: found {pixels!r}, expected a multiple of {step} (the VAE's {self.stride} x the DiT's "
                    f"patch): {nearest}"
                )


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


WAN22 = LatentLayout(stride=16, patch=2, frames_per_latent=4, channels=48, text_tokens=512)
