"""Where a run begins and ends, which checkpoint it goes on from, and what it must not replace."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import safe_open

from motion_depth.checkpoints.checkpoint import (
    CONFIG,
    STEP_FOLDER,
    Checkpoint,
    newest_valid,
    read_checkpoint,
    require_schema,
    step_folders,
)
from motion_depth.checkpoints.provenance import identify
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.files.atomic import write_json
from motion_depth.files.folders import clear_leftovers
from motion_depth.model.backbone import Backbone
from motion_depth.processes.machines import require_alike, require_shared
from motion_depth.processes.ranks import say, world_size
from motion_depth.settings import Settings
from motion_depth.training.log import LOG_FILE
from motion_depth.training.optimizer import STATE_FILE
from motion_depth.training.ownership import Occupation
from motion_depth.training.start import Start
from motion_depth.training.trackers import TRACKERS

RUN_FILE = "training_run.json"  # whose an output folder is
NAMELESS = (LOG_FILE, *TRACKERS, "validation")  # results that do not say of which run they are

Say = Callable[[str], None]
Identify = Callable[[Checkpoint | None], dict]  # a run's identity, once it was compared with a checkpoint's


def begin(
    settings: Settings,
    dataset: MotionDepthDataset,
    backbone: Backbone,
    heads: Checkpoint | None,
    occupation: Occupation,
) -> Start:
    """Finds where the run begins (`find_start`), and takes the output folder for it if it will write there.

    For the main process. A run that is refused leaves the folder as it was.

    Args:
        dataset: to train on. backbone: its files.
        heads: what a new run takes its heads from, if anything.

    Raises:
        ValueError: see `find_start`, `provenance.identify` and `Occupation.begin`.
    """
    output_path = settings.output.output_path
    before = _stamps(output_path)
    trust = settings.model.trust_model, settings.data.trust_data
    known = partial(identify, backbone, dataset, settings.data.cache_path, *trust, say, heads)
    search = partial(find_start, settings, world_size(), len(dataset) * settings.optim.num_epochs, say, known)
    start = search()
    if settings.data.cache_only or start.finished:
        return start
    occupation.begin()
    for message in clear_leftovers(output_path):
        say(message)
    # Another run may have written between the look and the taking. From here on nobody else does.
    return start if _stamps(output_path) == before else search()


def find_start(settings: Settings, processes: int, clips: int, say: Say, identify: Identify = lambda _: {}) -> Start:
    """What --resume asks for, and how far it is from there. Only reads.

    Args:
        processes: of the run that is to go on. clips: of all its epochs.
        say: is given a line about each step folder that is passed over.
        identify: is given what the run goes on from, or a finished one; raises ValueError for other weights or data.

    Raises:
        ValueError: the checkpoint is not whole, of a run with other settings, weights or data, or from the middle of an
            update; the output folder holds something of another run, or results that going on would replace; more
            iterations than --max_steps are behind it.
    """
    return _Search(settings, processes, clips, settings.output.output_path).start(say, identify)


def agree_on_start(accelerator: Accelerator, settings: Settings, start: Start | None) -> Start:
    """What the main process has found (`begin`), on every process, each of which reads the checkpoint. Collective.

    Args:
        start: of the main process; those of the others do not count.

    Raises:
        ValueError: on all processes, if machines have other settings or do not share --output_path; on one that cannot
            read the checkpoint.
    """
    output_path, resume = settings.output.output_path, settings.output.resume
    require_alike(accelerator, {f"--{name}": value for name, value in settings.common().items()})
    if not settings.data.cache_only:
        require_shared(accelerator, "--output_path", output_path, "a run that goes on reads its checkpoint there")
    name = start.checkpoint.folder.name if start and start.checkpoint else None
    facts, name = broadcast_object_list([start and replace(start, checkpoint=None), name])
    if accelerator.is_main_process:
        return start
    folder = output_path / name if name and resume == "auto" else Path(resume)
    return replace(facts, checkpoint=read_checkpoint(folder) if name else None)


def write_run_file(accelerator: Accelerator, settings: Settings) -> None:
    """Says in the output folder whose it is, before anything else is written there."""
    if accelerator.is_main_process:
        about = {"run": settings.plain(), "training": {"processes": accelerator.num_processes}}
        write_json(settings.output.output_path / RUN_FILE, about)


@dataclass(frozen=True)
class _Search:
    """For what a run goes on from. See `find_start` for the fields."""

    settings: Settings
    processes: int
    clips: int
    output_path: Path

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Processes, batch size, accumulation: their product is an update's clips."""
        return self.processes, self.settings.optim.batch_size, self.settings.optim.gradient_accumulation_steps

    def start(self, say: Say, identify: Identify) -> Start:
        clips = self.processes * self.settings.optim.batch_size  # of an iteration
        if self.settings.data.cache_only:
            return Start(total=self.total(0, 0), clips=clips)
        checkpoint = self.asked_for(say)
        step, seen = self.continued(checkpoint) if checkpoint else (0, 0)
        held = self.require_own(checkpoint)
        final = self.output_path / "final"
        identity = identify(checkpoint or (read_checkpoint(final) if "final" in held else None))
        if "final" in held:
            last = _position(final, held["final"])
            if self.total(*last, final) == last[0]:
                finished = f"finished before: {final} is the model of all {last[0]} iterations; nothing was written"
                return Start(*last, last[0], clips, identity=identity, finished=finished)
            if checkpoint is None:
                raise ValueError(
                    f"--output_path {self.output_path}: holds a finished run, final/, and no step folder to go on "
                    "from; choose another folder"
                )
        total = self.total(step, seen, checkpoint and checkpoint.folder)
        configs = ([checkpoint.config] if checkpoint else []) + ([held["best"]] if "best" in held else [])
        scores = [score for config in configs if (score := config["training"].get("best_score")) is not None]
        return Start(step, seen, total, clips, checkpoint, min(scores, default=None), identity)

    def asked_for(self, say: Say) -> Checkpoint | None:
        resume = self.settings.output.resume
        if resume == "none":
            if held := [name for name in _stamps(self.output_path) if name == "final" or STEP_FOLDER.fullmatch(name)]:
                raise ValueError(
                    f"--output_path {self.output_path} already holds {', '.join(held[:3])}; "
                    "continue it with --resume auto or choose another folder"
                )
            return None
        if resume == "auto":
            _, newest, messages = newest_valid(self.output_path)
            for message in messages:
                say(message)
            if newest is None and messages:
                raise ValueError(
                    f"--resume auto: none of the {len(messages)} step folders in {self.output_path} is whole (see "
                    "above); move them away, or choose another --output_path"
                )
            return newest and require_schema(newest)
        named = read_checkpoint(Path(resume))
        if not named.has(STATE_FILE):
            raise ValueError(f"--resume {resume}: has no {STATE_FILE}; give a step-N folder")
        return named

    def continued(self, checkpoint: Checkpoint) -> tuple[int, int]:
        """Iterations and clips behind a checkpoint. Raises ValueError if these settings do not continue it."""
        folder, config, resume = checkpoint.folder, checkpoint.config, self.settings.output.resume
        step, seen = _position(folder, config)
        later = [other.name for at, other in step_folders(self.output_path) if at > step]
        if resume != "auto" and later:
            raise ValueError(
                f"--resume {resume}: --output_path {self.output_path} holds later ones ({', '.join(later[:3])}); "
                "choose another folder, or move them away"
            )
        if differing := self.settings.differences(config["run"], known="identity" in config):
            raise ValueError(f"--resume {folder}: these settings are not those of that run: {'; '.join(differing)}")
        _require_the_same_update(folder, _sizes(config), self.sizes)
        _require_a_whole_update(folder)
        return step, seen

    def require_own(self, resumed: Checkpoint | None) -> dict[str, dict]:
        """What lies in the output folder and says of which run it is, by name. Raises ValueError if it is another one.

        Args:
            resumed: what the run goes on from.
        """
        names, own, others = _stamps(self.output_path), {}, []
        held = [name for name in names if name != RUN_FILE]  # with which alone nothing would be lost
        for name in [name for name in names if name not in NAMELESS]:
            path = self.output_path / name if name == RUN_FILE else self.output_path / name / CONFIG
            try:
                config = json.loads(path.read_bytes())
                others += [f"{path}: {text}" for text in self.other_run(config, resumed)]
                own[name] = config
            except (OSError, ValueError, KeyError, TypeError) as error:
                if not STEP_FOLDER.fullmatch(name):  # which is damaged, and was passed over
                    held.append(name)
                    others.append(f"{path}: does not describe a run ({error!r})")
        if not own and not others:
            others = ["nothing there says of which"]
        if held and others:
            what = f"{', '.join(dict.fromkeys(held))} of another run ({'; '.join(others)})"
            raise ValueError(
                f"--output_path {self.output_path}: holds {what}; choose another folder, or move them away"
            )
        return own

    def other_run(self, config: dict, resumed: Checkpoint | None) -> list[str]:
        """In what a config differs from a run's settings, a text each."""
        before, now = math.prod(_sizes(config)), math.prod(self.sizes)
        known = resumed is not None and "identity" in resumed.config
        differing = self.settings.differences(config["run"], known)
        if before != now:
            differing.append(f"an update was made from {before} clips, is from {now}")
        ours = self.settings.plain()["heads_checkpoint"]
        if resumed is None and (theirs := config["run"]["heads_checkpoint"]) != ours:
            differing.append(f"--heads_checkpoint was {theirs}, is {ours}")
        return differing

    def total(self, step: int, seen: int, folder: Path | None = None) -> int:
        """Iterations of the whole run, from what is behind a folder. Raises ValueError if --max_steps is below that."""
        max_steps = self.settings.optim.max_steps
        if max_steps and max_steps < step:
            raise ValueError(
                f"--max_steps {max_steps}: {folder} has {step} iterations behind it already; ask for {step} or more, "
                "or choose another --output_path"
            )
        total = step + max(0, math.ceil((self.clips - seen) / (self.processes * self.settings.optim.batch_size)))
        return min(total, max_steps or total)


def _require_the_same_update(folder: Path, before: tuple[int, int, int], now: tuple[int, int, int]) -> None:
    """Each: processes, batch size, accumulation."""
    clips, others = math.prod(before), now[0] * now[1]
    if clips == math.prod(now):
        return
    use = "another number of processes" if clips % others else f"--gradient_accumulation_steps {clips // others}"
    form = "{} processes x --batch_size {} x --gradient_accumulation_steps {}"
    raise ValueError(
        f"--resume {folder}: an update of that run is made from {clips} clips ({form.format(*before)}), here it would "
        f"be {math.prod(now)} ({form.format(*now)}); use {use}"
    )


def _require_a_whole_update(folder: Path) -> None:
    """Versions that saved between any two iterations stored gradients that had gathered so far."""
    with safe_open(folder / STATE_FILE, framework="pt") as state:
        if any(name.startswith(("gradient/", "pending/")) for name in state.keys()):  # noqa: SIM118
            raise ValueError(
                f"--resume {folder}: was saved in the middle of an update, which is not continued any more; move it "
                "away, and give a step folder from between two updates (a multiple of --gradient_accumulation_steps)"
            )


def _position(folder: Path, config: dict) -> tuple[int, int]:
    """Iterations and clips behind a checkpoint. Raises ValueError if it does not describe a run."""
    try:
        _sizes(config)
        return int(config["training"]["step"]), int(config["training"]["clips"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: does not describe a run ({error!r})") from None


def _sizes(config: dict) -> tuple[int, int, int]:
    """Processes, batch size and accumulation of the run that a config is of."""
    settings = config["run"]
    sizes = config["training"]["processes"], settings["batch_size"], settings["gradient_accumulation_steps"]
    return tuple(map(int, sizes))


def _stamps(output_path: Path) -> dict[str, int]:
    """What a run has put into an output folder, and when it was last written; without what is empty."""
    held = {}
    for path in sorted(output_path.glob("[!.]*")):
        if path.name in (RUN_FILE, "best", "final", *NAMELESS) or STEP_FOLDER.fullmatch(path.name):
            about = path.stat() if path.exists() else path.lstat()
            if any(path.iterdir()) if path.is_dir() else about.st_size:
                held[path.name] = about.st_mtime_ns
    return held
