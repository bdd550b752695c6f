"""Where a run's numbers and pictures go beside `log.jsonl`: the trackers that --report_to names, run by accelerate.

A tracker is a line in TRACKERS, under the name that accelerate knows it by, and a class here if it shows pictures.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from motion_depth.pictures.media import read_picture, read_video

NONE = "none"
LOGGING_FOLDER = "tensorboard"  # accelerate's logging_dir, within the output folder: trackers that want one use it
SERVER_TIMEOUT = "5"  # seconds that wandb's server has to answer before the run is logged offline


class Tracker:
    """What one of accelerate's trackers needs beside its class there, on the main process; as it stands: numbers only.

    Args:
        package: what must be importable.
    """

    def __init__(self, package: str):
        self.package = package

    def arguments(self, output_path: Path, run_id: str | None, step: int) -> dict[str, object]:
        """Further arguments of accelerate's class.

        Args:
            run_id: of the run to go on with (see `begin`), or None. step: iterations that it has made.
        """
        return {}

    def begin(self, tracker: GeneralTracker, config: dict[str, object]) -> str | None:
        """Stores a run's settings. Returns an id by which a continued run finds its place, if it needs one."""
        tracker.store_init_configuration(config)
        return None

    def show(self, tracker: GeneralTracker, pictures: dict[str, Path], step: int) -> None:
        """Shows PNG and MP4 files, by the names of their panels, if it can."""


class Wandb(Tracker):
    def arguments(self, output_path: Path, run_id: str | None, step: int) -> dict[str, object]:
        import wandb

        mode, reason = self._mode()
        if mode != "online":
            print(f"wandb: {mode}, {reason}; files go to {output_path / 'wandb'}")
        quiet = wandb.Settings(silent=True, console="off")
        resume = "allow" if run_id else None
        return {"mode": mode, "dir": str(output_path), "id": run_id, "resume": resume, "settings": quiet}

    def begin(self, tracker: GeneralTracker, config: dict[str, object]) -> str:
        tracker.store_init_configuration(config)
        run = tracker.tracker
        if run.settings.mode == "online":  # asked in another mode, wandb warns that there is no address
            print(f"wandb: {run.url}")
        run.define_metric("iteration")
        run.define_metric("*", step_metric="iteration")
        return run.id

    def show(self, tracker: GeneralTracker, pictures: dict[str, Path], step: int) -> None:
        import wandb

        kinds = {".png": wandb.Image, ".mp4": wandb.Video}
        shown = {name: kinds[path.suffix](str(path)) for name, path in pictures.items()}
        tracker.log({"iteration": step, **shown}, step=step)

    @staticmethod
    def _mode() -> tuple[str, str]:
        """("online", "offline", ...; why): what the user has set, or else online only if wandb's server knows them."""
        import wandb

        if mode := os.environ.get("WANDB_MODE"):
            return mode, f"WANDB_MODE={mode}"
        if (mode := wandb.setup(wandb.Settings(silent=True)).settings.mode) != "online":
            return mode, "as wandb's settings say"
        os.environ.setdefault("WANDB_HTTP_TIMEOUT", SERVER_TIMEOUT)
        try:
            logged_in = wandb.login(prompt=False, verify=True)
        except wandb.Error as error:
            return "offline", str(error)
        return ("online", "") if logged_in else ("offline", "no wandb login (run `wandb login` or set WANDB_API_KEY)")


class TensorBoard(Tracker):
    def arguments(self, output_path: Path, run_id: str | None, step: int) -> dict[str, object]:
        return {"purge_step": step + 1 if step else 0}  # what a killed run wrote after it comes again

    def begin(self, tracker: GeneralTracker, config: dict[str, object]) -> None:
        tracker.tracker.add_text("settings", f"```\n{json.dumps(config, indent=1)}\n```")

    def show(self, tracker: GeneralTracker, pictures: dict[str, Path], step: int) -> None:
        """A video becomes a GIF, which is what TensorBoard shows."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        writer = tracker.tracker
        for name, path in pictures.items():
            if path.suffix == ".png":
                writer.add_image(name, np.asarray(read_picture(path)), step, dataformats="HWC")
                continue
            frames, milliseconds = read_video(path), 1000 / iio.immeta(path, plugin="FFMPEG")["fps"]
            gif = iio.imwrite("<bytes>", frames, extension=".gif", duration=milliseconds, loop=0)
            image = Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=gif)
            writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)


TRACKERS: dict[str, Tracker] = {"wandb": Wandb("wandb"), "tensorboard": TensorBoard("tensorboard")}


def parse_trackers(text: str) -> list[str]:
    """The trackers of --report_to, names with commas between them or `none`; [] for none.

    Raises:
        ValueError: one is not known, or its package is not installed.
    """
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", NONE)]
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"--report_to {text}: {name} is no tracker; expected {', '.join([*TRACKERS, NONE])}")
        if importlib.util.find_spec(package := TRACKERS[name].package) is None:
            raise ValueError(
                f"--report_to {text}: the package {package} is not installed; run `pip install {package}`, or leave "
                f"{name} out"
            )
    return list(dict.fromkeys(names))


def start_trackers(
    accelerator: Accelerator, project: str, config: dict[str, object], output_path: Path, run_id: str | None, step: int
) -> str | None:
    """Starts the accelerator's trackers (`log_with`).

    Args:
        config: the whole run's settings.
        run_id: what this returned in the run to continue, or None. step: iterations that it has made.

    Returns:
        The run's id at the tracker that needs one, to be kept in checkpoints; None off the main process.
    """
    if not accelerator.is_main_process or not accelerator.log_with:
        return run_id
    output_path.mkdir(parents=True, exist_ok=True)
    names = [str(name) for name in accelerator.log_with]
    arguments = {name: TRACKERS[name].arguments(output_path, run_id, step) for name in names}
    accelerator.init_trackers(project, init_kwargs=arguments)
    ids = [TRACKERS[tracker.name].begin(tracker, config) for tracker in accelerator.trackers]
    return next((found for found in ids if found), run_id)


def show_pictures(accelerator: Accelerator, pictures: dict[str, Path], step: int) -> None:
    """Gives PNG and MP4 files, by the names of their panels, to the trackers that are there."""
    for tracker in accelerator.trackers:  # none off the main process
        TRACKERS[tracker.name].show(tracker, pictures, step)
