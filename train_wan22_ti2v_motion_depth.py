"""Trains motion and depth heads on WAN2.2-TI2V, stage 1 on the frozen DiT, stage 2 with LoRA on the DiT.

The stage scripts show every setting and call this with accelerate:

    bash train_wan22_stage1_heads.sh
    bash train_wan22_stage2_lora.sh

One process, without them (MODEL is the folder of the 5B release, or what tools/demo/make_tiny_wan.py wrote):

    python train_wan22_ti2v_motion_depth.py --stage 1 --dataset_base_path DATA --dataset_metadata_path data/my.csv \
        --model_base_path MODEL --output_path outputs/stage1 --height 480 --width 480 --num_frames 49
"""

from __future__ import annotations

import argparse
import contextlib
import math
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration, set_seed
from torch import Tensor
from transformers import get_scheduler

from motion_depth.checkpoints.checkpoint import Checkpoint, read_checkpoint
from motion_depth.checkpoints.models import LoraShape, load_heads, read_head_config, read_lora_config, read_statistics
from motion_depth.checkpoints.provenance import data_identity, identify
from motion_depth.checkpoints.schema import LORA_FILE
from motion_depth.clips.batch import Batch, reduce_item
from motion_depth.clips.dataset import (
    LoadImageSequenceWithMotionWrapper,
    MotionDepthDataset,
    create_motion_data_operator,
)
from motion_depth.clips.noise import NoiseMixture
from motion_depth.latents import LatentLayout
from motion_depth.model import backbone_kind
from motion_depth.model.backbone import CHECKPOINTING, Backbone, Dit
from motion_depth.model.compiling import compile_counts, compile_parts
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, parse_taps, tap_blocks
from motion_depth.model.lora import add_lora, check_lora_targets, load_lora
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.sharding import move_whole, prepare_sharded, take_request
from motion_depth.processes.devices import check_processes, count_gpus
from motion_depth.processes.exits import NotFiniteError, leave, rank, run_to_the_end, say, world_size
from motion_depth.processes.signals import Stopped, Stopping
from motion_depth.readouts import READOUTS
from motion_depth.readouts.losses import head_losses, total_loss
from motion_depth.readouts.readout import Statistics
from motion_depth.settings import check_settings, plain, run_dtype, to_int, warmup_remark
from motion_depth.training.health import Health, gradient_size
from motion_depth.training.loader import BatchLoader, rank_positions
from motion_depth.training.log import RunLog
from motion_depth.training.ownership import Occupation
from motion_depth.training.preflight import (
    check_distinct,
    check_output,
    check_record,
    check_resources,
    check_scenes,
    check_shared_memory,
)
from motion_depth.training.prepare import measure_statistics, prepare_data
from motion_depth.training.resuming import agree_on_start, begin, write_run_file
from motion_depth.training.run import Run, build_optimizer, is_due
from motion_depth.training.state import named_trainable
from motion_depth.training.trackers import LOGGING_FOLDER, parse_trackers, start_trackers
from motion_depth.training.validation import Validation

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")  # of transformers
# By stage; stage 2 keeps the library's shifted grid, which its flow loss is weighted for.
DEFAULT_MIXTURE = {1: "1,1,1", 2: "0,0,1"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    # fmt: off
    usage = "%(prog)s --stage {1,2} --dataset_base_path DIR --dataset_metadata_path CSV --output_path DIR ..."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=usage, allow_abbrev=False)
    add = parser.add_argument
    add("--stage", type=int, choices=(1, 2), required=True, help="1: heads on the frozen DiT. 2: LoRA and heads")
    # data
    add("--dataset_base_path", type=Path, required=True, help="folder that the CSV's `video` column is relative to")
    add("--dataset_metadata_path", type=Path, required=True, help="CSV with columns video,prompt: the training scenes")
    add("--val_metadata_path", type=Path, help="CSV of held-out scenes to validate on; none: no validation")
    add("--val_steps", type=int, default=500, help="iterations between validations; 0: before and after only")
    add("--val_clips", type=int, default=8, help="held-out scenes that are validated on, one clip each")
    add("--cache_path", type=Path, help="folder to encode every clip into once; none: encode at every step")
    add("--cache_only", action="store_true", help="fill --cache_path and stop")
    add("--dataset_repeat", type=int, default=100, help="clips of a scene in an epoch, from its windows in turn")
    add("--dataset_num_workers", type=int, default=4, help="loader processes per GPU; 0 loads in the training process")
    add("--height", type=int, default=480, help="pixels, a multiple of 32")
    add("--width", type=int, default=480, help="pixels, a multiple of 32")
    add("--num_frames", type=int, default=49, help="frames of a clip, 4k+1")
    add("--frame_stride", default="auto", help="rendered frames per frame of a clip; auto: the largest that fits")
    add("--motion_units", default="pixels", help="of the files: pixels, normalized (by size) or ndc (by half of it)")
    add("--motion_direction", default="backward", help="backward (Replicator, x positive to the left) or forward")
    add("--motion_y_axis", default="down", help="direction of y in motion_vectors as backward flow: down or up")
    add("--motion_frame_offset", type=int, default=0, help="frame t's motion lies in file t + this: 0, 1 or -1")
    add("--trust_data", action="store_true", help="go on with data that a check or the run to go on with contradicts")
    # model
    add("--model_base_path", type=Path, help="folder of the WAN2.2-TI2V-5B release, or of the tiny model")
    add("--model_paths", help="instead: JSON list of weight files (a list within it: the shards of one part)")
    add("--model_id_with_origin_paths", help="instead: MODEL_ID:FILE_PATTERN,... to download into ./models")
    add("--tokenizer_path", type=Path, help="tokenizer's folder, if not google/umt5-xxl in --model_base_path")
    add("--trust_model", action="store_true", help="go on with other weights than those the checkpoint was trained on")
    add("--head", help="dense (default), or linear: one linear layer per token, the baseline")
    add("--head_size", choices=HEAD_SIZES, help="full (default) for the 5B model, small for the demo model")
    add("--head_taps", help="DiT blocks that are read, as fractions of its depth; default 0.33,0.5,0.67,0.83")
    add("--head_upsampling", help="from stride 4 up: convex (default, learned) or bilinear")
    add("--head_latent_skip", type=int, choices=(0, 1), help="1 (default): also read the noised latents. 0: off")
    add("--heads_checkpoint", type=Path, help="checkpoint to start the heads from; stage 2: stage 1's final/")
    add("--lora_rank", type=int, default=32, help="stage 2: rank of the LoRA")
    add("--lora_target_modules", default="q,k,v,o,ffn.0,ffn.2", help="stage 2: linear layers of the DiT that get LoRA")
    # losses
    for name, readout in READOUTS.items():
        add(f"--{name}_loss_weight", type=float, default=readout.loss_weight, help=f"weight of the {name} loss; 0: off")
    add("--flow_loss_weight", type=float, default=1.0, help="stage 2: weight of the flow-matching loss; 0: off")
    add("--motion_balance", type=int, choices=(0, 1), default=1, help="1: moving and static pixels weigh equal. 0: off")
    add("--loss_frames", type=int, default=0, help="frames of a clip that a step decodes and compares; 0: all of them")
    add("--noise_mixture", help="weights of uniform,low,shifted noise levels; default 1,1,1, stage 2: 0,0,1")
    # optimisation
    add("--learning_rate", type=float, default=1e-4, help="of the heads")
    add("--lora_learning_rate", type=float, default=1e-4, help="stage 2: of the LoRA")
    add("--weight_decay", type=float, default=0.01, help="of AdamW; 0: off")
    add("--lr_scheduler", choices=SCHEDULES, default="constant_with_warmup", help="of both learning rates")
    add("--lr_warmup_steps", type=int, default=100, help="optimizer updates until the full learning rate; 0: off")
    add("--max_grad_norm", type=float, default=1.0, help="gradient clipping; 0: off")
    add("--num_epochs", type=int, default=10, help="epochs of scenes x dataset_repeat clips")
    add("--max_steps", type=int, default=0, help="stop after this many iterations; 0: as many as the epochs have")
    add("--batch_size", type=int, default=1, help="clips per GPU in one forward")
    add("--gradient_accumulation_steps", type=int, default=8, help="iterations per optimizer update")
    add("--gradient_checkpointing", choices=CHECKPOINTING, default="every", help="stage 2: blocks recomputed")
    add("--compile", action="store_true", help="torch.compile the DiT's blocks and the heads: a slow first step")
    add("--mixed_precision", choices=("no", "bf16"), default="bf16", help="bf16: trained weights stay float32")
    add("--max_bad_steps", type=int, default=10, help="updates in a row with inf or NaN that end the run; 0: never")
    add("--seed", type=int, default=0, help="of clip order, noise levels, noise and new weights")
    # output
    add("--output_path", type=Path, required=True, help="folder for checkpoints, log.jsonl and wandb files")
    add("--save_steps", type=int, default=500, help="iterations between checkpoints (at updates); 0: only final/")
    add("--keep_last", type=int, default=0, help="step-N folders that are kept; 0: all")
    add("--resume", default="none", help="auto: continue from the newest step-N; none; or a step-N folder")
    add("--max_hours", type=float, default=0.0, help="save and stop after so many hours, with exit code 75; 0: never")
    add("--timeout_minutes", type=float, default=30.0, help="how long a process waits for the others before it fails")
    add("--report_to", default="none", help="trackers: wandb, tensorboard, wandb,tensorboard or none. wandb is offline "
        "where there is no login or network")
    add("--use_wandb", action="store_true", help="the same as wandb in --report_to")
    add("--wandb_project", default="wan22-motion-depth", help="wandb project")
    # fmt: on
    return parser.parse_args(argv)


def build_datasets(
    args: argparse.Namespace, layout: LatentLayout
) -> tuple[MotionDepthDataset, MotionDepthDataset | None]:
    """Training clips, and held-out ones if there are any; every scene is checked here."""
    operator: LoadImageSequenceWithMotionWrapper = create_motion_data_operator(
        base_path=args.dataset_base_path,
        height=args.height,
        width=args.width,
        num_frames=args.num_frames,
        frame_stride=args.frame_stride if args.frame_stride == "auto" else to_int("frame_stride", args.frame_stride),
        motion_units=args.motion_units,
        motion_direction=args.motion_direction,
        motion_y_axis=args.motion_y_axis,
        motion_frame_offset=args.motion_frame_offset,
        layout=layout,
    )
    base, tables = args.dataset_base_path, [args.dataset_metadata_path, args.val_metadata_path]
    if rank() == 0:  # the others wait for it where they first meet
        check_scenes(operator, [table for table in tables if table])
        for text in check_record(operator, [table for table in tables if table], args.trust_data):
            say(text)
    train = MotionDepthDataset(base, args.dataset_metadata_path, operator, args.dataset_repeat, args.seed, reduce_item)
    held_out = None
    if args.val_metadata_path:
        held_out = MotionDepthDataset(base, args.val_metadata_path, operator, 1, args.seed, reduce_item)
    for text in check_distinct(train, held_out):
        say(text)
    return train, held_out


def choose_heads(args: argparse.Namespace, backbone: Backbone, start: Checkpoint | None) -> HeadConfig:
    """The heads' architecture: that of --heads_checkpoint, or what the --head flags say; both at once must agree."""
    dim, blocks = backbone.dim, backbone.num_blocks
    given = {"kind": args.head, "upsampling": args.head_upsampling, **HEAD_SIZES.get(args.head_size, {})}
    if args.head_latent_skip is not None:
        given["latent_skip"] = bool(args.head_latent_skip)
    if args.head_taps is not None:
        given["taps"] = parse_taps(args.head_taps, blocks)
    given = {name: value for name, value in given.items() if value is not None}
    if start is None:
        return HeadConfig(
            **{"dit_dim": dim, "taps": tap_blocks(blocks), **HeadConfig.fields_of(backbone.layout), **given}
        )
    config = read_head_config(start, dim, blocks)
    if differing := [name for name, value in given.items() if getattr(config, name) != value]:
        raise ValueError(
            f"--heads_checkpoint {args.heads_checkpoint}: its heads differ from the --head flags in "
            f"{', '.join(differing)}; leave those flags out, the checkpoint knows its heads"
        )
    return config


def build_model(
    args: argparse.Namespace, dit: Dit, statistics: Statistics, config: HeadConfig, lora: LoraShape | None,
    start: Checkpoint | None,
) -> MotionDepthModel:  # fmt: skip
    """Puts together what this stage trains."""
    set_seed(args.seed)  # new weights are the same on every process and in every run
    heads = load_heads(start, dit.dim, len(dit.blocks)) if start else MotionDepthHeads(config, statistics)
    for name, head in heads.items():
        head.requires_grad_(getattr(args, f"{name}_loss_weight") > 0)
    if lora is not None:
        add_lora(dit, lora.rank, lora.target_modules, lora.last_block)
        if start is not None and (before := read_lora_config(start)):
            load_lora(dit, start.tensors(LORA_FILE), str(start.folder / LORA_FILE), before.last_block)
    model = MotionDepthModel(dit, heads, train_dit=args.stage == 2, checkpointing=args.gradient_checkpointing)
    # DDP would broadcast the frozen DiT, which every process has read from the same file.
    model._ddp_params_and_buffers_to_ignore = [
        name for name, value in model.state_dict(keep_vars=True).items() if not value.requires_grad
    ]
    if args.compile:
        compile_parts(dit.blocks, heads.values())
    return model


def step_losses(
    args: argparse.Namespace, model: torch.nn.Module, batch: Batch, statistics: Statistics
) -> dict[str, Tensor]:
    """One forward; every loss per clip, (b,), and their weighted sum `loss`."""
    with_flow = args.stage == 2 and args.flow_loss_weight > 0
    predictions = model(batch.latents, batch.first, batch.context, batch.noise, batch.sigma, with_flow, batch.frames)
    losses = head_losses(predictions, batch.targets, statistics.scales, bool(args.motion_balance))
    weights = {name: getattr(args, f"{name}_loss_weight") for name in READOUTS}
    if with_flow:
        losses["flow_loss"] = predictions["flow_loss"]
        weights["flow"] = args.flow_loss_weight
    return {"loss": total_loss(losses, weights), **losses}


def train(args: argparse.Namespace, stopping: Stopping, occupation: Occupation) -> None:
    count_gpus()
    check_settings(args)
    trackers = parse_trackers(f"{args.report_to},wandb" if args.use_wandb else args.report_to)
    check_output(args.output_path)
    kind = backbone_kind(args.model_base_path)
    check_shared_memory(args, kind.layout)
    dataset, held_out = build_datasets(args, kind.layout)
    backbone = kind.find(args.model_base_path, args.model_paths, args.model_id_with_origin_paths, args.tokenizer_path)
    heads = read_checkpoint(args.heads_checkpoint) if args.heads_checkpoint else None
    config = choose_heads(args, backbone, heads)
    if args.stage == 2:
        check_lora_targets(backbone.linear_layers(), args.lora_target_modules.split(","))
    mixture = NoiseMixture.parse(args.noise_mixture or DEFAULT_MIXTURE[args.stage])
    start = None
    if rank() == 0:
        trust = args.trust_model, args.trust_data
        known = partial(identify, backbone, dataset, args.cache_path, *trust, say, heads)
        start = begin(args, world_size(), len(dataset) * args.num_epochs, occupation, say, known)

    sharding = take_request()
    # A layout remark of DDP on depthwise convolutions, which it says itself is no error.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ddp = DistributedDataParallelKwargs(find_unused_parameters=False, gradient_as_bucket_view=True)
    waiting = InitProcessGroupKwargs(timeout=timedelta(minutes=args.timeout_minutes))
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        kwargs_handlers=[ddp, waiting],
        log_with=trackers or None,
        project_config=ProjectConfiguration(logging_dir=str(args.output_path / LOGGING_FOLDER)),
    )
    check_processes(accelerator)
    start = agree_on_start(accelerator, args, start)
    if start.finished:
        accelerator.print(start.finished)
        accelerator.end_training()
        return
    total, resumed = start.total, start.checkpoint
    clips = accelerator.num_processes * args.batch_size
    check_resources(args, accelerator, backbone, config, start.step, total, sharding is not None)
    positions = range(start.seen, start.seen + (total - start.step) * clips)
    dit_device = torch.device("cpu") if sharding else accelerator.device
    samples, encoder, (val_samples, own), dit = prepare_data(
        args, accelerator, dataset, held_out, backbone, positions, dit_device
    )
    if args.cache_only:
        accelerator.print(f"done: {args.cache_path} holds every clip of this run")
        return
    if accelerator.is_main_process and args.cache_path:  # which has read every scene by now
        start.identity["data"] = data_identity(dataset, args.cache_path)
    source = resumed or heads
    statistics = read_statistics(source) if source else measure_statistics(accelerator, dataset)
    last_block = None if args.flow_loss_weight else max(config.taps)  # behind it nothing but the flow loss trains
    targets = tuple(args.lora_target_modules.split(","))
    lora = LoraShape(args.lora_rank, targets, last_block) if args.stage == 2 else None
    model = build_model(args, dit, statistics, config, lora, source)
    model = move_whole(model, accelerator.device) if sharding else model.to(accelerator.device)
    optimizer = build_optimizer(model, args.learning_rate, args.lora_learning_rate, args.weight_decay)
    updates = math.ceil(positions.stop / (clips * args.gradient_accumulation_steps))
    scheduler = get_scheduler(args.lr_scheduler, optimizer, args.lr_warmup_steps, updates)
    health = Health(args.max_bad_steps, dataset.describe)
    run = Run(
        accelerator, model, optimizer, scheduler, statistics, plain(args), lora, args.output_path, args.keep_last,
        clips, health, occupation, start.identity,
    )  # fmt: skip
    if resumed is not None:
        run.restore(resumed)
    run.know_best(start.best_score)
    size = args.num_frames, args.height, args.width
    accelerator.print(f"stage {args.stage}: {len(dataset.data)} scenes, {len(dataset)} clips an epoch")
    accelerator.print(run.describe(start.step, total, updates, size))
    if remark := warmup_remark(args.lr_scheduler, args.lr_warmup_steps, updates):
        accelerator.print(f"warning: {remark}")
    if accelerator.is_main_process:
        write_run_file(args, accelerator.num_processes)
    run.wandb_id = start_trackers(
        accelerator, args.wandb_project, plain(args), args.output_path, run.wandb_id, start.step
    )
    dtype = run_dtype(args)
    if val_samples:
        first = held_out.operator((val_samples[0].scene, val_samples[0].window))
        run.validation = Validation(
            accelerator, val_samples, own, first.frames, statistics, bool(args.motion_balance), args.seed, dtype
        )
    batches = BatchLoader(
        samples,
        rank_positions(positions, accelerator.process_index, accelerator.num_processes, args.batch_size),
        encoder,
        mixture,
        args.seed,
        args.dataset_num_workers,
        accelerator.device,
        dtype,
        args.loss_frames,
    )
    prepared = prepare_sharded(accelerator, model, sharding) if sharding else accelerator.prepare_model(model)
    run.log = RunLog(accelerator, args.output_path, total, start.step)
    stopping.between_iterations()
    try:
        if start.step == 0:
            run.validate(0)
        loop(args, run, prepared, batches, start.step, total, stopping)
        if not health.learned:
            raise NotFiniteError(run.nothing_learned_message())
        run.save("final", total)
    except (Stopped, NotFiniteError):
        accelerator.end_training()  # on all processes alike
        raise
    finally:
        run.log.close()
    if args.compile:
        accelerator.print(compile_counts())
    skipped = f", {health.skipped} updates skipped" if health.skipped else ""
    accelerator.print(
        f"done: {total} iterations{skipped}; heads{' and LoRA' if lora else ''} in {args.output_path / 'final'}"
    )
    accelerator.end_training()


def loop(
    args: argparse.Namespace, run: Run, model: torch.nn.Module, batches: BatchLoader, start: int, total: int,
    stopping: Stopping,
) -> None:  # fmt: skip
    """Iterations start+1 .. total of the prepared model; an iteration is one batch on every process.

    A group of iterations makes one optimizer update. Between two groups the run is whole: only there it is validated,
    saved and stopped.
    """
    accelerator = run.accelerator
    parameters = list(named_trainable(run.model).values())
    for step, batch in enumerate(batches, start=start + 1):
        before = step - 1 - (step - 1 - start) % args.gradient_accumulation_steps  # iterations before this group
        end = min(before + args.gradient_accumulation_steps, total)
        with contextlib.nullcontext() if step == end else accelerator.no_sync(model):
            losses = step_losses(args, model, batch, run.statistics)
            accelerator.backward(losses["loss"].mean() / (end - before))
        run.log.add(batch, losses, gradient_size(parameters))
        if step < end:
            continue
        if before == start:  # once: a head that no loss reaches would train nothing without a word
            run.require_gradients()
        run.update(step, args.max_grad_norm, batches.waited)
        if step == total or is_due(args.val_steps, before, step):
            run.validate(step)
        reason = stopping.agreed() if step < total else None
        if reason or run.health.hopeless or is_due(args.save_steps, before, step):
            run.save(f"step-{step}", step)
        if run.health.hopeless:
            raise NotFiniteError(run.hopeless_message(step))
        if reason:
            raise Stopped(f"{reason} after iteration {step}; step-{step} is saved, --resume auto goes on from it")


def main() -> None:
    args = parse_args()
    limits = args.max_hours, args.timeout_minutes
    with Stopping(*limits) as stopping, Occupation(args.output_path, say) as occupation:
        code = run_to_the_end(lambda: train(args, stopping, occupation))
    leave(code)


if __name__ == "__main__":
    main()
