"""Where encoded samples come from: a cache that is filled first, or the scenes' files at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor
from torch.utils.data import Dataset

from motion_depth.cache.cached import CachedDataset, ClipCache, Missing
from motion_depth.cache.encode import encode_missing
from motion_depth.checkpoints.provenance import data_identity
from motion_depth.clips.batch import Sample, pack_targets
from motion_depth.clips.dataset import MotionDepthDataset, raise_load_errors
from motion_depth.model.backbone import Backbone, Encoder
from motion_depth.processes.machines import Machine, require_alike, sees_shared
from motion_depth.readouts.readout import Statistics
from motion_depth.readouts.statistics import measure
from motion_depth.settings import Settings
from motion_depth.training.loader import encode
from motion_depth.training.start import Start

PROMPTS_AT_ONCE = 64  # handed from process to process; one has up to 4 MB
STATISTICS_SCENES = 24  # scenes that the median depth and the loss scales are measured on


class HeldOut(NamedTuple):
    """What a process validates on.

    Attributes:
        samples: its clips, encoded; as many on every process.
        own: how many of them count; the others count elsewhere.
        frames: uint8 (t, h, w, 3) of the first of them.
    """

    samples: list[Sample]
    own: int
    frames: Tensor


class Samples(NamedTuple):
    """What a run reads.

    Attributes:
        train: gives a `Sample` of the training sequence for its position.
        encoder: of samples that come as frames; None where they come encoded.
        held_out: None without scenes to validate on.
    """

    train: Dataset
    encoder: Encoder | None
    held_out: HeldOut | None


def prepare_samples(
    accelerator: Accelerator,
    settings: Settings,
    train: MotionDepthDataset,
    held_out: MotionDepthDataset | None,
    backbone: Backbone,
    start: Start,
) -> Samples:
    """Fills the cache, or gets every prompt's context; encoders that nothing needs any more are gone afterwards.

    Args:
        start: with a cache, which has read every scene, the main process notes there what their files hold.

    Raises:
        ValueError: see `fill_caches`.
    """
    dtype, cache_path = settings.optim.dtype, settings.data.cache_path
    identity = agree_on_data(accelerator, train, held_out, backbone)
    chosen = range(min(len(held_out), settings.data.val_clips)) if held_out else range(0)
    datasets = [(train, start.positions)] + ([(held_out, chosen)] if held_out else [])
    if cache_path is None:
        prompts = sorted({row["prompt"] for dataset, _ in datasets for row in dataset.data})
        contexts = encode_for_all(accelerator, backbone, prompts, dtype)
        encoder = backbone.load_encoder(("vae",), dtype, accelerator.device, contexts)
        sources = [dataset for dataset, _ in datasets]
    else:
        caches = [(ClipCache(cache_path, dataset, identity, dtype), wanted) for dataset, wanted in datasets]
        fill_caches(accelerator, caches, backbone, dtype, settings.data.dataset_num_workers)
        sources = [CachedDataset(cache, settings.with_heads) for cache, _ in caches]
        encoder = None
        if accelerator.is_main_process:
            start.identity["data"] = data_identity(train, cache_path)
    if settings.data.cache_only or not chosen:
        return Samples(sources[0], encoder, None)
    mine, own = share_of(chosen, accelerator)
    samples = read_samples(sources[1], mine, encoder)
    first = held_out.operator((samples[0].scene, samples[0].window))
    return Samples(sources[0], encoder, HeldOut(samples, own, first.frames))


def fill_caches(
    accelerator: Accelerator,
    caches: Sequence[tuple[ClipCache, Iterable[int]]],
    backbone: Backbone,
    dtype: torch.dtype,
    workers: int,
) -> None:
    """Encodes what is missing, all processes together.

    Machines that share the folder divide the work; otherwise each fills its own. The text encoder and the VAE are
    loaded only if something of theirs is missing, and are gone when this returns.

    Args:
        caches: each with the positions of its dataset that will be read.

    Raises:
        ValueError: a clip cannot be read, the folder takes no more, or machines have other files of a scene.
    """
    machine, folder = Machine.find(accelerator), caches[0][0].folder
    first, processes = machine.first, machine.processes
    if not sees_shared(accelerator, "--cache_path", folder):
        first, processes = 0, accelerator.num_processes
    found = None
    if accelerator.process_index == first:
        found = [cache.missing(positions) for cache, positions in caches]
        for missing in found:
            print(missing.summary, flush=True)
    found = gather_object([found])[first]
    place = (accelerator.process_index - first, processes)
    # Prompts are few: only one process loads the text encoder, and nobody has it beside the VAE.
    if place[0] == 0:
        _encode(
            accelerator, "text_encoder", caches, [replace(each, clips=[]) for each in found], backbone, dtype, place
        )
    clips = [replace(each, prompts=[]) for each in found]
    _encode(accelerator, "vae", caches, clips, backbone, dtype, place, workers)
    for cache, _ in caches:
        _exchange_known(cache)


def _encode(
    accelerator: Accelerator,
    part: str,
    caches: Sequence[tuple[ClipCache, Iterable[int]]],
    found: Sequence[Missing],
    backbone: Backbone,
    dtype: torch.dtype,
    place: tuple[int, int],
    workers: int = 0,
) -> None:
    """Encodes what is missing of each cache with one part of the model, which is loaded only for that."""
    if not any(found):
        return
    encoder = backbone.load_encoder((part,), dtype, accelerator.device)
    for (cache, _), missing in zip(caches, found, strict=True):
        encode_missing(cache, missing, encoder, *place, workers, progress=place[0] == 0)
    del encoder
    clear_device_cache(garbage_collection=True)


def _exchange_known(cache: ClipCache) -> None:
    """Tells every process what each clip's files are, so that nobody else looks. Collective."""
    known = {}
    for theirs in gather_object([cache.known]):
        for clip, files in theirs.items():
            if known.setdefault(clip, files) != files:
                raise ValueError(
                    f"--dataset_base_path: scene {clip[0]} has other files on one machine than on another; expected "
                    "the same files or copies of them"
                )
    cache.known.update(known)


def agree_on_data(
    accelerator: Accelerator, train: MotionDepthDataset, held_out: MotionDepthDataset | None, backbone: Backbone
) -> dict[str, list[str]]:
    """The weights' identity, of which the first process of each machine convinces itself. Collective.

    Raises:
        ValueError: on all processes, if machines have other weights, CSVs, or numbers of frames.
    """
    found = identity = None
    if accelerator.is_local_main_process:
        tables = {"--dataset_metadata_path": train} | ({"--val_metadata_path": held_out} if held_out else {})
        identity = backbone.identity()
        found = {f"weights ({part})": digests for part, digests in identity.items()}
        for flag, dataset in tables.items():
            rows = [(row["video"], row["prompt"]) for row in dataset.data]
            found[f"{flag} or its scenes' frames"] = list(zip(rows, dataset.windows, strict=True))
    require_alike(accelerator, found)
    return broadcast_object_list([identity])[0]


def encode_for_all(
    accelerator: Accelerator, backbone: Backbone, prompts: Sequence[str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Every prompt's context, on the CPU, in every process; only the main process ever has the text encoder."""
    contexts = {}
    if accelerator.is_main_process:
        contexts = backbone.encode_prompts(prompts, dtype, accelerator.device)
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        several = prompts[start : start + PROMPTS_AT_ONCE]
        (sent,) = broadcast_object_list([[contexts.get(prompt) for prompt in several]])
        contexts.update(zip(several, sent, strict=True))
    return contexts


def read_samples(dataset: Dataset, positions: Iterable[int], encoder: Encoder | None) -> list[Sample]:
    """Samples at some positions, encoded, all in memory. Raises ValueError for a clip that cannot be read."""
    samples = []
    for position in positions:
        (sample,) = raise_load_errors([dataset[position]])
        encode([sample], encoder)
        samples.append(sample)
    return samples


def share_of(items: Sequence, accelerator: Accelerator) -> tuple[list, int]:
    """Every n-th item, for this process, and how many of them count.

    All shares are made equally long, with the first item, because a forward may take all processes (`sharding.py`).
    """
    mine = list(items[accelerator.process_index :: accelerator.num_processes])
    rounds = math.ceil(len(items) / accelerator.num_processes)
    return mine + [items[0]] * (rounds - len(mine)), len(mine)


def measure_statistics(accelerator: Accelerator, dataset: MotionDepthDataset) -> Statistics:
    """The main process reads the first clip of up to STATISTICS_SCENES scenes; all processes get the result."""
    found = [None]
    if accelerator.is_main_process:
        scenes = list(dict.fromkeys(row["video"] for row in dataset.data))
        count = min(len(scenes), STATISTICS_SCENES)
        spread = [scenes[number * len(scenes) // count] for number in range(count)]
        found = [measure(pack_targets(dataset.operator(scene)) for scene in spread)]
    return broadcast_object_list(found)[0]
