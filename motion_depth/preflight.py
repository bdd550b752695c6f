"""What is looked at before a run starts: scenes, the recorded dataset check, the output folder, disk and GPU memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from motion_depth.checkpoint import require_space
from motion_depth.data import LoadImageSequenceWithMotionWrapper, read_metadata
from motion_depth.doctor.quick import quick_check
from motion_depth.doctor.record import contradiction, recorded_check
from motion_depth.findings import raise_errors

FLOAT32 = 4  # bytes
ADAMW = 2  # moments of every trained number
# Of the 5B model's VAE and text encoder, which stay in memory without a cache.
ENCODERS = 6_400_000_000  # numbers


def check_scenes(operator: LoadImageSequenceWithMotionWrapper, metadata_paths: Sequence[Path]) -> None:
    """Looks at the names and headers of all scenes' files, in parallel.

    Raises:
        ValueError: lists every problem of every scene, row by row.
    """
    problems = []
    for path in metadata_paths:
        scenes = [row["video"] for row in read_metadata(path)]
        findings = quick_check(
            operator.base_path, scenes, operator.num_frames, operator.frame_stride, operator.convention.frame_offset
        )
        try:
            raise_errors(findings, str(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def check_record(
    operator: LoadImageSequenceWithMotionWrapper, metadata_paths: Sequence[Path], trust_data: bool
) -> list[str]:
    """Compares the motion flags with what tools/make_metadata.py --check has measured and noted beside the CSV.

    Returns:
        What differs, if `trust_data` goes on all the same.

    Raises:
        ValueError: they contradict each other; the message names the flags to use.
    """
    found = []
    for path in metadata_paths:
        scenes = [row["video"] for row in read_metadata(path)]
        record = recorded_check(path, operator.base_path, scenes)
        if text := contradiction(record, operator.convention):
            found.append(f"{path}: {text}")
    if found and not trust_data:
        raise ValueError(f"{found[0]}; or --trust_data to go on with these")
    return found


def check_output(output_path: Path) -> None:
    """Raises ValueError if the folder cannot be made or written into. Writes nothing."""
    place = output_path.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"--output_path {output_path}: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--output_path {output_path}: no permission to write into {place}")


def checkpoint_bytes(trained: int, processes: int) -> tuple[int, int]:
    """Bytes of a step folder and of final/, from how many numbers are trained.

    A step folder may hold the gradients of every process as well.
    """
    weights = trained * FLOAT32
    return weights * (1 + ADAMW + processes), weights


def check_space(output_path: Path, trained: int, processes: int, saves: int, keep_last: int) -> None:
    """Raises ValueError if the checkpoints that are still to come do not fit on the disk.

    Args:
        trained: numbers that are trained. saves: step folders to come. keep_last: how many of them stay; 0: all.
    """
    step, final = checkpoint_bytes(trained, processes)
    kept = min(saves, keep_last + 1) if keep_last else saves  # the old one goes after the new one stands
    place = output_path.absolute()
    while not place.is_dir():
        place = place.parent
    require_space(place, kept * step + 2 * final, f"{kept} step folders, best/ and final/")


def needed_memory(
    dit: int, trained: int, bytes_per_weight: int, with_encoders: bool, activations: int = 0
) -> tuple[int, int]:
    """GPU memory of a training process: what it needs in any case, and with what a forward keeps for its backward.

    Args:
        dit: numbers of the frozen DiT. trained: numbers that are trained: weight, gradient and two moments in float32.
        bytes_per_weight: of a frozen number, 2 in bf16. with_encoders: VAE and text encoder stay (no cache).
        activations: bytes that a forward keeps.

    Returns:
        Bytes, (at least, about).
    """
    least = (dit + with_encoders * ENCODERS) * bytes_per_weight + trained * FLOAT32 * (2 + ADAMW)
    return least, least + activations


def check_memory(free: int, least: int, about: int) -> str:
    """One line about the estimate beside what is free, in bytes.

    Raises:
        ValueError: even without activations it does not fit.
    """
    line = f"GPU memory: about {about / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
    advice = "lower --num_frames, --height or --width or set --loss_frames, and use --cache_path"
    if least > free:
        raise ValueError(f"{line}; weights and optimizer alone take {least / 1e9:.1f} GB: {advice}")
    return f"{line}; if it runs out, {advice}" if about > free else line
