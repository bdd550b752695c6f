"""What is looked at before a run starts: scenes, the recorded check, the output folder, disk, shared and GPU memory."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from motion_depth.checkpoints.checkpoint import require_space
from motion_depth.clips.dataset import LoadImageSequenceWithMotionWrapper, MotionDepthDataset
from motion_depth.data.findings import Finding, raise_errors
from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import RGB
from motion_depth.doctor.quick import quick_check
from motion_depth.doctor.record import Record, contradiction, recorded_check, standing_errors, unused_record
from motion_depth.files.tables import read_metadata
from motion_depth.latents import LatentLayout
from motion_depth.model.backbone import Backbone
from motion_depth.model.lora import lora_state_dict
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import SAVED
from motion_depth.processes.devices import count_gpus
from motion_depth.processes.ranks import local_world_size
from motion_depth.readouts import READOUTS
from motion_depth.settings import Settings
from motion_depth.training.architecture import Architecture, planned_model
from motion_depth.training.checks import check_settings
from motion_depth.training.loader import PREFETCHED
from motion_depth.training.memory import count_step
from motion_depth.training.start import Start
from motion_depth.training.trackers import parse_trackers

FLOAT32 = 4  # bytes
ADAMW = 2  # moments of every trained number
# Where torch's loader processes put the tensors that they hand over (Linux); containers often have 64 MB of it.
SHARED_MEMORY = Path("/dev/shm")


def check_before_reading(settings: Settings, layout: LatentLayout) -> None:
    """What flags and this machine alone tell. Raises ValueError."""
    count_gpus()
    check_settings(settings)
    parse_trackers(settings.output.trackers)
    check_output(settings.output.output_path)
    check_shared_memory(settings, layout)


def check_data(
    operator: LoadImageSequenceWithMotionWrapper, tables: Sequence[Path], trust_data: bool, say: Callable[[str], None]
) -> None:
    """`check_scenes` and `check_record` of some CSVs."""
    check_scenes(operator, tables)
    for text in check_record(operator, tables, trust_data):
        say(text)


def check_scenes(operator: LoadImageSequenceWithMotionWrapper, metadata_paths: Sequence[Path]) -> None:
    """Looks at the names and headers of all scenes' files, in parallel.

    Raises:
        ValueError: lists every problem of every scene, row by row.
    """
    problems = []
    for path in metadata_paths:
        try:
            raise_errors(scene_findings(operator, [row["video"] for row in read_metadata(path)]), str(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def scene_findings(operator: LoadImageSequenceWithMotionWrapper, scenes: Sequence[str]) -> list[Finding]:
    """What is wrong with the names and headers of scenes' files, or with their lengths; rows count from 1."""
    return quick_check(
        operator.base_path, scenes, operator.num_frames, operator.frame_stride, operator.convention.frame_offset
    )


def check_record(
    operator: LoadImageSequenceWithMotionWrapper, metadata_paths: Sequence[Path], trust_data: bool
) -> list[str]:
    """Compares the motion flags with what tools/make_metadata.py --check has measured and noted beside the CSV.

    Returns:
        Lines to say: what differs, if `trust_data` goes on all the same, and what else that check found wrong; or that
        there is a record which is about other files.

    Raises:
        ValueError: they contradict each other; the message names the flags to use.
    """
    lines = []
    for path in metadata_paths:
        record = recorded_check(path, operator.base_path, [row["video"] for row in read_metadata(path)])
        if text := weigh_record(record, operator.convention, str(path), trust_data):
            lines.append(f"--trust_data: {text}")
        if text := standing_errors(record) if record else unused_record(path):
            lines.append(f"warning: {path}: {text}")
    return lines


def weigh_record(record: Record | None, convention: MotionConvention, title: str, trust_data: bool) -> str | None:
    """How a record contradicts a convention, None if it does not. Raises ValueError unless `trust_data` goes on."""
    text = contradiction(record, convention)
    if text and not trust_data:
        raise ValueError(f"{title}: {text}; or --trust_data to go on with these")
    return text and f"{title}: {text}"


def check_distinct(train: MotionDepthDataset, held_out: MotionDepthDataset | None) -> list[str]:
    """Compares scenes by where their pictures lie, whatever the CSVs call them, and whatever links lead there.

    Returns:
        A remark for each scene that one CSV has under two names.

    Raises:
        ValueError: a held-out scene is a training scene.
    """
    places = [_picture_places(dataset) for dataset in (train, held_out) if dataset]
    for place in [place for place in places[1] if place in places[0]] if held_out else []:
        theirs, ours = places[0][place][0], places[1][place][0]
        also = "" if ours == theirs else f", as {theirs} (both are {place.parent})"
        raise ValueError(
            f"--val_metadata_path {held_out.metadata_path}: {ours} is a training scene too{also}; leave it out "
            f"there or in {train.metadata_path}"
        )
    return [
        f"{dataset.metadata_path}: {' and '.join(names)} are one scene ({place.parent}); it counts {len(names)} times"
        for dataset, found in zip((train, held_out), places, strict=False)
        for place, names in found.items()
        if len(names) > 1
    ]


def _picture_places(dataset: MotionDepthDataset) -> dict[Path, list[str]]:
    """By the first picture's file, links resolved: the names that a CSV has for the scene, each once."""
    places = {}
    for name in dict.fromkeys(row["video"] for row in dataset.data):
        first = next(iter(dataset.operator.scene(name).files[RGB].values()))
        places.setdefault(first.resolve(), []).append(name)
    return places


def check_output(output_path: Path) -> None:
    """Raises ValueError if the folder cannot be made or written into. Writes nothing."""
    place = output_path.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"--output_path {output_path}: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--output_path {output_path}: no permission to write into {place}")


def check_shared_memory(settings: Settings, layout: LatentLayout, folder: Path = SHARED_MEMORY) -> None:
    """Whether what all loader processes of this machine keep ready fits into shared memory; nothing where it is none.

    Raises:
        ValueError: it does not, and one of them would be killed by a bus error.
    """
    workers, clip = settings.data.dataset_num_workers, settings.clip
    if not workers or not folder.is_dir():
        return
    encoded, size = settings.data.cache_path is not None, (clip.num_frames, clip.height, clip.width)
    batch = settings.optim.batch_size * sample_bytes(layout, *size, encoded, settings.optim.dtype.itemsize)
    if settings.data.cache_only:
        batch = 3 * math.prod(size)  # read to be encoded: the frames of one clip
    trainings = local_world_size()
    needed, disk = workers * PREFETCHED * trainings * batch, shutil.disk_usage(folder)
    if needed > disk.free:
        whole = math.ceil((needed + disk.used) / 2**30)
        raise ValueError(
            f"--dataset_num_workers {workers}: loader processes keep {needed / 1e9:.2f} GB ready in "
            f"{folder}, found {disk.free / 1e9:.2f} GB free; start the container with --shm-size={whole}g or more "
            f"(docker, podman), or use --dataset_num_workers {int(workers * disk.free / needed)}"
        )


def sample_bytes(
    layout: LatentLayout, num_frames: int, height: int, width: int, encoded: bool, float_bytes: int
) -> int:
    """Bytes of a `batch.Sample` as a loader process hands it over, without the prompt's few tokens.

    Args:
        encoded: with latents, from the cache; else with frames.
        float_bytes: of one number of the latents.
    """
    pixels = num_frames * height * width
    maps = (math.prod(readout.map_channels) for readout in READOUTS.values())
    targets = pixels * sum(2 * channels + 1 for channels in maps)  # float16, and a bool
    if not encoded:
        return targets + 3 * pixels
    clip, first = (layout.latent_shape(frames, height, width) for frames in (num_frames, 1))
    return targets + (math.prod(clip) + math.prod(first)) * float_bytes


def check_resources(
    accelerator: Accelerator, settings: Settings, backbone: Backbone, plan: Architecture, start: Start, sharded: bool
) -> None:
    """Disk for the checkpoints that are to come, and GPU memory; before hours are spent on a cache.

    Args:
        sharded: whether each process keeps only its share of what can be shared.

    Raises:
        ValueError: there is not enough of one.
    """
    needed = None
    if accelerator.is_main_process:
        model = planned_model(settings, backbone, plan)
        files, state = checkpoint_bytes(settings, model)
        if not settings.data.cache_only:
            every = settings.output.save_steps
            saves = start.total // every - start.step // every if every else 1
            check_space(settings.output.output_path, files, state, saves, settings.output.keep_last)
        if accelerator.device.type == "cuda":
            needed = needed_memory(settings, model, backbone, accelerator.num_processes if sharded else 1)
    if accelerator.device.type == "cuda":
        (needed,) = broadcast_object_list([needed])
        free, _ = torch.cuda.mem_get_info(accelerator.device)
        accelerator.print(check_memory(free, needed))


def checkpoint_bytes(settings: Settings, model: MotionDepthModel) -> tuple[int, int]:
    """Of the model's files, and of what a step folder has besides: moments, and weights if those files are not they."""
    heads = _numbers(model.heads.parameters()) if model.heads else 0
    if settings.full:
        files = SAVED.itemsize * _numbers(model.dit.parameters()) + FLOAT32 * heads
    else:
        files = FLOAT32 * (heads + _numbers(lora_state_dict(model.dit).values()))
    averaged = settings.optim.ema_decay > 0
    trained = _numbers(each for each in model.parameters() if each.requires_grad)
    return files, FLOAT32 * trained * (ADAMW + (settings.full or averaged) + averaged)


def check_space(output_path: Path, files: int, state: int, saves: int, keep_last: int) -> None:
    """Raises ValueError if the checkpoints that are still to come do not fit on the disk.

    Args:
        files, state: see `checkpoint_bytes`. saves: step folders to come. keep_last: how many of them stay; 0: all.
    """
    kept = min(saves, keep_last + 1) if keep_last else saves  # the old one goes after the new one stands
    place = output_path.absolute()
    while not place.is_dir():
        place = place.parent
    require_space(place, kept * (files + state) + 2 * files, f"{kept} step folders, best/ and final/")


def needed_memory(settings: Settings, model: MotionDepthModel, backbone: Backbone, shares: int) -> int:
    """Bytes of GPU memory that a process needs: the peak of a step, or the text encoder's before the first one.

    What is there in any case counts: with --compile, where the compiler decides what else is kept, only weights and
    optimizer; with --cache_only the VAE. With a cache the text encoder may have nothing to do.

    Args:
        model: see `planned_model`; of no use afterwards.
        shares: processes that share the DiT's blocks, or with --tune full all that is trained.
    """
    size = settings.optim.dtype.itemsize
    vae, text_encoder = (size * backbone.count_numbers(part) for part in ("vae", "text_encoder"))
    if settings.data.cache_only:
        return vae
    clip, optim, parameters = settings.clip, settings.optim, list(model.parameters())
    shared = size * _numbers(each for each in model.dit.blocks.parameters() if not each.requires_grad)
    trained = _numbers(each for each in parameters if each.requires_grad)
    average = FLOAT32 * trained if optim.ema_decay else 0
    if settings.full:  # weights, gradients and moments
        shared += FLOAT32 * (2 + ADAMW) * trained + average
    if optim.compile:
        step = sum(each.nbytes for each in parameters) + FLOAT32 * (1 + ADAMW) * trained
    else:
        decoded = settings.loss.loss_frames or clip.num_frames
        step = count_step(
            model, optim.batch_size, clip.num_frames, clip.height, clip.width, decoded, settings.with_flow
        )
    step += average - shared * (shares - 1) // shares
    return step if settings.data.cache_path else max(step + vae, text_encoder)


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def check_memory(free: int, needed: int) -> str:
    """One line about GPU memory, in bytes. Raises ValueError if what is needed is not free."""
    line = f"GPU memory: {needed / 1e9:.1f} GB needed (counted), {free / 1e9:.1f} GB free"
    if needed > free:
        raise ValueError(
            f"{line}; free the GPU, or lower --batch_size, --num_frames, --height, --width, --loss_frames or "
            "--lora_rank, or use --gradient_checkpointing every, --cache_path (the VAE then leaves the GPU) or "
            "--head_size small; with --tune full let several GPUs share the weights (configs/fsdp.yaml)"
        )
    return line
