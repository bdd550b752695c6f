"""Which checkpoint a run goes on from, and what it must not replace."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import safe_open

from motion_depth.checkpoint import Checkpoint, newest_valid, read_checkpoint, step_folders
from motion_depth.machines import require_alike, require_shared
from motion_depth.run import STATE_FILE
from motion_depth.settings import common_settings, differences


def find_resume(args: Any, processes: int, say: Callable[[str], None]) -> tuple[int, Checkpoint | None]:
    """The step folder that --resume asks for, and how many iterations it has behind it; (0, None) for a new run.

    Args:
        args: the run's settings. processes: of the run that is to go on.
        say: is given a line about each step folder that is passed over.

    Raises:
        ValueError: it is not whole, of a run with other settings or from the middle of an update, or going on would
            replace results.
    """
    if args.resume == "none":
        return 0, None
    if args.resume == "auto":
        step, found, messages = newest_valid(args.output_path)
        for message in messages:
            say(message)
        if found is None:
            _refuse_to_start_over(args.output_path)
            return 0, None
    else:
        found = read_checkpoint(Path(args.resume))
        if not found.has(STATE_FILE):
            raise ValueError(f"--resume {args.resume}: has no {STATE_FILE}; give a step-N folder")
    try:
        training, settings = found.config["training"], dict(found.config["run"])
        step, _ = int(training["step"]), int(training["clips"])
        sizes = training["processes"], settings["batch_size"], settings["gradient_accumulation_steps"]
        before = tuple(map(int, sizes))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{found.folder / 'config.json'}: does not describe a run ({error!r})") from None
    later = [folder.name for other, folder in step_folders(args.output_path) if other > step]
    if args.resume != "auto" and later:
        raise ValueError(
            f"--resume {args.resume}: --output_path {args.output_path} holds later ones ({', '.join(later[:3])}); "
            "choose another folder, or move them away"
        )
    if differing := differences(args, settings):
        raise ValueError(f"--resume {found.folder}: these settings are not those of that run: {'; '.join(differing)}")
    _require_the_same_update(found.folder, before, (processes, args.batch_size, args.gradient_accumulation_steps))
    _require_a_whole_update(found.folder)
    return step, found


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


def agree_on_resume(
    accelerator: Accelerator, args: Any, start: int, resumed: Checkpoint | None
) -> tuple[int, Checkpoint | None]:
    """What the main process goes on from (`find_resume`), on every process, each of which reads it. Collective.

    Args:
        start, resumed: of the main process; those of the others do not count.

    Raises:
        ValueError: on all processes, if machines have other settings or do not share --output_path; on one that cannot
            read the checkpoint.
    """
    require_alike(accelerator, {f"--{name}": value for name, value in common_settings(args).items()})
    require_shared(accelerator, "--output_path", args.output_path, "a run that goes on reads its checkpoint there")
    start, name = broadcast_object_list([start, resumed and resumed.folder.name])
    if name is None or accelerator.is_main_process:
        return start, resumed if accelerator.is_main_process else None
    return start, read_checkpoint(args.output_path / name if args.resume == "auto" else Path(args.resume))


def _refuse_to_start_over(output_path: Path) -> None:
    if steps := step_folders(output_path):
        raise ValueError(
            f"--resume auto: none of the {len(steps)} step folders in {output_path} is whole (see above); "
            "move them away, or choose another --output_path"
        )
    if (output_path / "final").exists():
        raise ValueError(
            f"--output_path {output_path}: holds a finished run, final/, and no step folder to go on from; "
            "choose another folder"
        )
