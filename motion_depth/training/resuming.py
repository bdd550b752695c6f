"""Where a run begins and ends, which checkpoint it goes on from, and what it must not replace."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from motion_depth.files.atomic import write_json
from motion_depth.files.folders import clear_leftovers
from motion_depth.processes.machines import require_alike, require_shared
from motion_depth.settings import common_settings, differences, plain
from motion_depth.training.log import LOG_FILE
from motion_depth.training.ownership import Occupation
from motion_depth.training.run import STATE_FILE
from motion_depth.training.trackers import TRACKERS

RUN_FILE = "training_run.json"  # whose an output folder is
NAMELESS = (LOG_FILE, *TRACKERS, "validation")  # results that do not say of which run they are


@dataclass(frozen=True)
class Start:
    """Where a run begins and ends.

    Attributes:
        step, seen: iterations and clips behind it.
        total: iterations of the whole run.
        checkpoint: that it goes on from; None for a new run.
        best_score: of the best/ that lies in the output folder; None if there is none.
        identity: of weights and data (`provenance.identify`).
        finished: what to say if nothing is left to do, else "".
    """

    step: int = 0
    seen: int = 0
    total: int = 0
    checkpoint: Checkpoint | None = None
    best_score: float | None = None
    identity: dict = field(default_factory=dict)
    finished: str = ""


Identify = Callable[[Checkpoint | None], dict]  # a run's identity, once it was compared with a checkpoint's


def begin(
    args: Any, processes: int, clips: int, occupation: Occupation, say: Callable[[str], None], identify: Identify
) -> Start:
    """Finds where the run begins (`find_start`), and takes the output folder for it if it will write there.

    For the main process. A run that is refused leaves the folder as it was.

    Raises:
        ValueError: see `find_start` and `Occupation.begin`.
    """
    before = _stamps(args.output_path)
    start = find_start(args, processes, clips, say, identify)
    if args.cache_only or start.finished:
        return start
    occupation.begin()
    for message in clear_leftovers(args.output_path):
        say(message)
    # Another run may have written between the look and the taking. From here on nobody else does.
    return start if _stamps(args.output_path) == before else find_start(args, processes, clips, say, identify)


def find_start(
    args: Any, processes: int, clips: int, say: Callable[[str], None], identify: Identify = lambda _: {}
) -> Start:
    """What --resume asks for, and how far it is from there. Only reads.

    Args:
        args: the run's settings. processes: of the run that is to go on. clips: of all its epochs.
        say: is given a line about each step folder that is passed over.
        identify: is given what the run goes on from, or a finished one; raises ValueError for other weights or data.

    Raises:
        ValueError: the checkpoint is not whole, of a run with other settings, weights or data, or from the middle of an
            update; the output folder holds something of another run, or results that going on would replace; more
            iterations than --max_steps are behind it.
    """
    if args.cache_only:
        return Start(total=_total(args, processes, clips, 0, 0))
    found, step, seen = _asked_for(args, say), 0, 0
    if found is not None:
        step, seen = _continued(found, args, processes)
    there = _require_own(args, processes, found)
    identity = identify(found or (read_checkpoint(args.output_path / "final") if "final" in there else None))
    best_score = there["best"]["training"].get("best_score") if "best" in there else None
    if "final" in there:
        folder = args.output_path / "final"
        last = _position(folder, there["final"])
        if _total(args, processes, clips, *last, folder) == last[0]:
            finished = f"finished before: {folder} is the model of all {last[0]} iterations; nothing was written"
            return Start(*last, last[0], identity=identity, finished=finished)
        if found is None:
            raise ValueError(
                f"--output_path {args.output_path}: holds a finished run, final/, and no step folder to go on from; "
                "choose another folder"
            )
    total = _total(args, processes, clips, step, seen, found and found.folder)
    return Start(step, seen, total, found, best_score, identity)


def agree_on_start(accelerator: Accelerator, args: Any, start: Start | None) -> Start:
    """What the main process has found (`begin`), on every process, each of which reads the checkpoint. Collective.

    Args:
        start: of the main process; those of the others do not count.

    Raises:
        ValueError: on all processes, if machines have other settings or do not share --output_path; on one that cannot
            read the checkpoint.
    """
    require_alike(accelerator, {f"--{name}": value for name, value in common_settings(args).items()})
    if not args.cache_only:
        require_shared(accelerator, "--output_path", args.output_path, "a run that goes on reads its checkpoint there")
    name = start.checkpoint.folder.name if start and start.checkpoint else None
    facts, name = broadcast_object_list([start and replace(start, checkpoint=None), name])
    if accelerator.is_main_process:
        return start
    folder = args.output_path / name if name and args.resume == "auto" else Path(args.resume)
    return replace(facts, checkpoint=read_checkpoint(folder) if name else None)


def write_run_file(args: Any, processes: int) -> None:
    """Says in the output folder whose it is, before anything else is written there."""
    write_json(args.output_path / RUN_FILE, {"run": plain(args), "training": {"processes": processes}})


def _asked_for(args: Any, say: Callable[[str], None]) -> Checkpoint | None:
    if args.resume == "none":
        if held := [name for name in _stamps(args.output_path) if name == "final" or STEP_FOLDER.fullmatch(name)]:
            raise ValueError(
                f"--output_path {args.output_path} already holds {', '.join(held[:3])}; "
                "continue it with --resume auto or choose another folder"
            )
        return None
    if args.resume == "auto":
        _, found, messages = newest_valid(args.output_path)
        for message in messages:
            say(message)
        if found is None and messages:
            raise ValueError(
                f"--resume auto: none of the {len(messages)} step folders in {args.output_path} is whole (see above); "
                "move them away, or choose another --output_path"
            )
        return found and require_schema(found)
    found = read_checkpoint(Path(args.resume))
    if not found.has(STATE_FILE):
        raise ValueError(f"--resume {args.resume}: has no {STATE_FILE}; give a step-N folder")
    return found


def _continued(found: Checkpoint, args: Any, processes: int) -> tuple[int, int]:
    """Iterations and clips behind a checkpoint. Raises ValueError if it is not one that these settings continue."""
    step, seen = _position(found.folder, found.config)
    before = _sizes(found.config)
    later = [folder.name for other, folder in step_folders(args.output_path) if other > step]
    if args.resume != "auto" and later:
        raise ValueError(
            f"--resume {args.resume}: --output_path {args.output_path} holds later ones ({', '.join(later[:3])}); "
            "choose another folder, or move them away"
        )
    if differing := differences(args, found.config["run"], known="identity" in found.config):
        raise ValueError(f"--resume {found.folder}: these settings are not those of that run: {'; '.join(differing)}")
    _require_the_same_update(found.folder, before, (processes, args.batch_size, args.gradient_accumulation_steps))
    _require_a_whole_update(found.folder)
    return step, seen


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


def _require_own(args: Any, processes: int, resumed: Checkpoint | None) -> dict[str, dict]:
    """What lies in the output folder and says of which run it is, by name. Raises ValueError if it is another one.

    Args:
        resumed: what the run goes on from.
    """
    names, found, others = _stamps(args.output_path), {}, []
    held = [name for name in names if name != RUN_FILE]  # with which alone nothing would be lost
    for name in [name for name in names if name not in NAMELESS]:
        path = args.output_path / name if name == RUN_FILE else args.output_path / name / CONFIG
        try:
            config = json.loads(path.read_bytes())
            others += [f"{path}: {text}" for text in _other_run(config, args, processes, resumed)]
            found[name] = config
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not STEP_FOLDER.fullmatch(name):  # which is damaged, and was passed over
                held.append(name)
                others.append(f"{path}: does not describe a run ({error!r})")
    if not found and not others:
        others = ["nothing there says of which"]
    if held and others:
        what = f"{', '.join(dict.fromkeys(held))} of another run ({'; '.join(others)})"
        raise ValueError(f"--output_path {args.output_path}: holds {what}; choose another folder, or move them away")
    return found


def _other_run(config: dict, args: Any, processes: int, resumed: Checkpoint | None) -> list[str]:
    """In what a config differs from a run's settings, a text each."""
    before, now = math.prod(_sizes(config)), processes * args.batch_size * args.gradient_accumulation_steps
    found = differences(args, config["run"], known=resumed is not None and "identity" in resumed.config)
    if before != now:
        found.append(f"an update was made from {before} clips, is from {now}")
    if resumed is None and (theirs := config["run"]["heads_checkpoint"]) != (ours := plain(args)["heads_checkpoint"]):
        found.append(f"--heads_checkpoint was {theirs}, is {ours}")
    return found


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


def _total(args: Any, processes: int, clips: int, step: int, seen: int, folder: Path | None = None) -> int:
    """Iterations of the whole run, from what is behind a folder. Raises ValueError if that is beyond --max_steps."""
    if args.max_steps and args.max_steps < step:
        raise ValueError(
            f"--max_steps {args.max_steps}: {folder} has {step} iterations behind it already; ask for {step} or more, "
            "or choose another --output_path"
        )
    total = step + max(0, math.ceil((clips - seen) / (processes * args.batch_size)))
    return min(total, args.max_steps or total)


def _stamps(output_path: Path) -> dict[str, int]:
    """What a run has put into an output folder, and when it was last written; without what is empty."""
    found = {}
    for path in sorted(output_path.glob("[!.]*")):
        if path.name in (RUN_FILE, "best", "final", *NAMELESS) or STEP_FOLDER.fullmatch(path.name):
            about = path.stat() if path.exists() else path.lstat()
            if any(path.iterdir()) if path.is_dir() else about.st_size:
                found[path.name] = about.st_mtime_ns
    return found
