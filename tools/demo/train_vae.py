"""Train the small VAE (motion_depth/tiny/vae.py) on packed frames: fit its linear code, then train the decoder.

    python tools/demo/pack_frames.py --scenes demo/train --output demo/frames.npy
    python tools/demo/train_vae.py --frames demo/frames.npy --heldout demo/heldout --output demo/vae --steps 14000

OUTPUT/vae.safetensors holds the running mean of the weights, ready for make_tiny_wan.py --vae; scores.json what it
scored on the held-out scenes. Stopped at any time and run again, it goes on from OUTPUT/checkpoint.pt to the same end.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from motion_depth.files.atomic import DRAFT, complete_file, expect_file, write_json
from motion_depth.processes.devices import choose_device
from motion_depth.progress import ProgressBar
from motion_depth.tiny.vae import (
    BLOCK_FRAMES,
    DECODER,
    DEPTHS,
    SmallVideoVAE,
    fit_vae,
    save_vae,
)
from motion_depth.training.ownership import LOCK_FILE, Occupation
from tools.demo.vae.frames import Heldout, draw_clips, draw_windows, open_frames, open_scenes, read_heldout, to_pixels
from tools.demo.vae.steps import Optimizers, average, loss_of, normalise, psnr

CHECKPOINT, WEIGHTS, SCORES = "checkpoint.pt", "vae.safetensors", "scores.json"
ARCHITECTURE = ("decoder", "depths")
FIT_WINDOWS, FIT_BLOCKS = 512, 48  # windows of four frames, blocks of each
STATISTICS_WINDOWS = 128  # whole clips
FIT, STATISTICS, CLIPS = 1, 2, 3  # what a draw is for, beside the seed
# What may change from one start to the next of the same run.
FREE = {"steps", "save_steps", "output", "device", "frames", "heldout"}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--frames", type=Path, nargs="+", required=True, metavar="NPY", help="files that pack_frames.py wrote")
    add("--heldout", type=Path, nargs="+", required=True, metavar="DIR", help="folders of scenes to score on")
    add("--output", type=Path, required=True, help="a new folder, or that of a run to go on with")
    add("--steps", type=int, default=20000, help="updates in all; the learning rate falls as a cosine over them")
    add("--save_steps", type=int, default=500, help="updates between checkpoints with scores")
    add("--decoder", type=int, nargs=3, default=DECODER, metavar="N", help="widths at strides 16, 8, 4")
    add("--depths", type=int, nargs=3, default=DEPTHS, metavar="N", help="residual blocks at strides 16, 8, 4")
    add("--batch_size", type=int, default=8, help="crops per update")
    add("--crop", type=int, default=64, help="pixels along a crop's sides")
    add("--num_frames", type=int, default=17, help="of a crop")
    add("--learning_rate", type=float, default=2e-3, help="at most")
    add("--latent_noise", type=float, default=0.2, help="most noise on latents in training; 0: none")
    add("--seed", type=int, default=0, help="of the fit, the network, the crops and the noise")
    add("--device", help="default: a GPU if there is one")
    return parser.parse_args(arguments)


@dataclass
class Run:
    """All that a checkpoint holds: with it training goes on as if it had not stopped."""

    options: argparse.Namespace
    vae: SmallVideoVAE
    optimizers: Optimizers
    mean: dict[str, Tensor]  # of the model's state
    step: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)  # scores

    def settings(self) -> dict[str, object]:
        """What a run that goes on must share with the one before."""
        fixed = {name: value for name, value in vars(self.options).items() if name not in FREE}
        return fixed | {name: self.vae.arguments[name] for name in ARCHITECTURE}

    def save(self) -> None:
        state = {"settings": self.settings(), "step": self.step, "seconds": self.seconds, "rows": self.rows}
        state |= {"model": self.vae.model.state_dict(), "mean": self.mean, "optimizers": self.optimizers.state()}
        with complete_file(self.options.output / CHECKPOINT) as draft:
            torch.save(state, draft)

    def load(self, path: Path) -> None:
        """Raises ValueError if the file is no checkpoint of a run with these settings."""
        try:
            state = torch.load(expect_file(path), map_location=self.options.device, weights_only=True)
            found = state["settings"]
        except Exception as error:  # whatever a broken file makes the unpickler raise
            raise ValueError(f"{path}: cannot be read as a checkpoint ({type(error).__name__})") from None
        if differ := [name for name, value in self.settings().items() if found.get(name) != value]:
            changes = ", ".join(f"--{name} {found.get(name)} (now {self.settings()[name]})" for name in differ)
            raise ValueError(f"--output {path.parent}: holds a run with {changes}; repeat that or give a new folder")
        self.vae.model.load_state_dict(state["model"])
        self.mean = state["mean"]
        self.optimizers.load(state["optimizers"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]


def check(options: argparse.Namespace) -> None:
    for name in ("steps", "save_steps", "batch_size", "learning_rate"):
        if getattr(options, name) <= 0:
            raise ValueError(f"--{name} {getattr(options, name)}: expected a number above 0")
    if options.latent_noise < 0:
        raise ValueError(f"--latent_noise {options.latent_noise}: expected 0 or more")
    for name in ARCHITECTURE:
        if any(size < 1 for size in getattr(options, name)):
            raise ValueError(f"--{name} {list(getattr(options, name))}: expected numbers above 0")
    output, own = options.output, {CHECKPOINT, WEIGHTS, SCORES, LOCK_FILE}
    if output.is_dir() and not (output / CHECKPOINT).exists():  # of a run that was killed early, drafts too may be left
        others = [path.name for path in output.iterdir() if path.name not in own and not DRAFT.fullmatch(path.name)]
    else:
        others = [output.name] if output.exists() and not output.is_dir() else []
    if others:
        raise ValueError(f"--output {output}: neither a new folder nor one of a run (found {sorted(others)[0]})")


def begin(options: argparse.Namespace, files: list[np.ndarray]) -> Run:
    """A run at its first step, or where its checkpoint left it."""
    sizes = {name: getattr(options, name) for name in ARCHITECTURE}
    stands = (options.output / CHECKPOINT).exists()
    if stands:
        vae = SmallVideoVAE(**sizes)
    else:
        windows = draw_windows(files, FIT_WINDOWS, BLOCK_FRAMES, (options.seed, FIT))
        vae = fit_vae(windows, FIT_BLOCKS, options.seed, **sizes)
    model = vae.model.to(options.device)
    if not stands:
        windows = draw_windows(files, STATISTICS_WINDOWS, options.num_frames, (options.seed, STATISTICS))
        normalise(model, windows, options.device)
    mean = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = Run(options, vae, Optimizers(model, options.learning_rate), mean)
    if stands:
        run.load(options.output / CHECKPOINT)
    return run


def averaged(run: Run) -> SmallVideoVAE:
    """The VAE with the running mean of the weights."""
    vae = copy.deepcopy(run.vae).requires_grad_(False)
    vae.model.load_state_dict(run.mean)
    return vae


def keep(run: Run, heldout: Heldout, loss: float | None) -> None:
    """Scores and saves; the checkpoint last, so that what it counts as done is there."""
    vae = averaged(run)
    scores = psnr(vae.model, heldout, run.options.device)
    run.rows.append({"step": run.step, "seconds": round(run.seconds, 1), "loss": loss} | scores)
    first, moving, still = scores.values()
    shown = "" if loss is None else f"loss {loss:.4f}, "
    ProgressBar.write(
        f"step {run.step}: {shown}held-out PSNR {first:.2f} dB first frame, {moving:.2f} moving, {still:.2f} still"
    )
    save_vae(vae, run.options.output / WEIGHTS)
    write_json(run.options.output / SCORES, {"settings": run.settings(), "scores": run.rows})
    run.save()


def train(run: Run, files: list[np.ndarray], heldout: Heldout) -> None:
    options, model = run.options, run.vae.model
    dtype = compute_type(options.device)
    if not run.rows:
        keep(run, heldout, None)
    losses: list[float] = []
    with ProgressBar(total=options.steps, initial=run.step, desc="training", unit="step") as bar:
        while run.step < options.steps:
            begun = time.perf_counter()
            seed, noise_seed = (options.seed, CLIPS, run.step), (options.seed << 32) + run.step
            clips = draw_clips(files, options.batch_size, options.num_frames, options.crop, seed)
            loss = loss_of(model, to_pixels(clips, options.device), options.latent_noise, noise_seed, dtype)
            loss.backward()
            run.optimizers.step(run.step, options.steps)
            average(run.mean, model, run.step)
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise ValueError(f"step {run.step}: the loss is {losses[-1]}; lower --learning_rate")
            run.step += 1
            run.seconds += time.perf_counter() - begun
            bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
            bar.update()
            if run.step % options.save_steps == 0 or run.step == options.steps:
                keep(run, heldout, float(np.mean(losses)))
                losses.clear()


def compute_type(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies in it, not only stores it."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def main() -> int:
    options = parse_arguments()
    try:
        options.device = choose_device(options.device)
        check(options)
        files = open_frames(options.frames, options.num_frames, options.crop)
        heldout = read_heldout(open_scenes(options.heldout, "--heldout"), options.num_frames)
        with Occupation(options.output, print) as occupation:
            occupation.begin()
            run = begin(options, files)
            if run.step < options.steps:
                train(run, files, heldout)
            else:
                print(f"{options.output}: {run.step} steps are done")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
