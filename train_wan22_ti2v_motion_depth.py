"""Trains motion and depth heads on WAN2.2-TI2V: stage 1 on the frozen DiT, stage 2 together with the DiT, by LoRA or
all of its weights. Without a loss for the heads there are none, and stage 2 trains the video model alone.

The stage scripts show every setting and call this with accelerate:

    bash train_wan22_stage1_heads.sh
    bash train_wan22_stage2_lora.sh

One process, without them (MODEL is the folder of the 5B release, or what tools/demo/make_tiny_wan.py wrote):

    python train_wan22_ti2v_motion_depth.py --stage 1 --dataset_base_path DATA --dataset_metadata_path data/my.csv \
        --model_base_path MODEL --output_path outputs/stage1 --height 480 --width 480 --num_frames 49

Settings and their checks are in motion_depth/settings.py; what an epoch, an iteration and an update are, in `loop`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from motion_depth.checkpoints.checkpoint import Checkpoint, read_checkpoint
from motion_depth.checkpoints.models import has_heads, load_heads, read_statistics
from motion_depth.clips.batch import Batch, reduce_item
from motion_depth.clips.dataset import (
    LoadImageSequenceWithMotionWrapper,
    MotionDepthDataset,
    create_motion_data_operator,
)
from motion_depth.latents import LatentLayout
from motion_depth.model import backbone_kind
from motion_depth.model.backbone import Dit
from motion_depth.model.compiling import compile_parts
from motion_depth.model.heads import MotionDepthHeads
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.sharding import move_whole, prepare_sharded, take_request, whole
from motion_depth.processes.exits import NotFiniteError, leave, run_to_the_end
from motion_depth.processes.ranks import rank, say
from motion_depth.processes.signals import Stopped, Stopping
from motion_depth.readouts.losses import head_losses, total_loss
from motion_depth.readouts.readout import Statistics
from motion_depth.settings import Settings, flags
from motion_depth.training.accelerator import start_accelerator
from motion_depth.training.architecture import Architecture, choose_architecture, train_dit, train_heads
from motion_depth.training.average import WeightAverage
from motion_depth.training.health import Health, gradient_size
from motion_depth.training.loader import BatchLoader
from motion_depth.training.log import RunLog
from motion_depth.training.optimizer import adamw, continue_from, named_trainable, require_gradients
from motion_depth.training.ownership import Occupation
from motion_depth.training.preflight import check_before_reading, check_data, check_distinct, check_resources
from motion_depth.training.resuming import agree_on_start, begin, write_run_file
from motion_depth.training.run import Run, is_due
from motion_depth.training.samples import measure_statistics, prepare_samples
from motion_depth.training.start import Start
from motion_depth.training.summary import describe_end, describe_run
from motion_depth.training.trackers import start_trackers
from motion_depth.training.validation import Validation


def parse_settings(argv: list[str] | None = None) -> Settings:
    usage = "%(prog)s --stage {1,2} --dataset_base_path DIR --dataset_metadata_path CSV --output_path DIR ..."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=usage, allow_abbrev=False)
    for flag, about in flags(Settings).items():
        parser.add_argument(flag, **about)
    return Settings.of(vars(parser.parse_args(argv)))


def build_datasets(settings: Settings, layout: LatentLayout) -> tuple[MotionDepthDataset, MotionDepthDataset | None]:
    """Training clips, and held-out ones if there are any; every scene is checked here."""
    data, seed = settings.data, settings.optim.seed
    base, tables = data.dataset_base_path, [data.dataset_metadata_path, data.val_metadata_path]
    operator: LoadImageSequenceWithMotionWrapper = create_motion_data_operator(
        base, **settings.clip.arguments(), layout=layout
    )
    if rank() == 0:  # the others wait for it where they first meet
        check_data(operator, [table for table in tables if table], data.trust_data, say)
    reduce = partial(reduce_item, with_targets=settings.with_heads)
    train = MotionDepthDataset(base, data.dataset_metadata_path, operator, data.dataset_repeat, seed, reduce)
    held_out = None
    if data.val_metadata_path:
        held_out = MotionDepthDataset(base, data.val_metadata_path, operator, 1, seed, reduce)
    for remark in check_distinct(train, held_out):
        say(remark)
    return train, held_out


def build_model(
    settings: Settings, plan: Architecture, dit: Dit, statistics: Statistics, source: Checkpoint | None
) -> MotionDepthModel:
    """What a stage trains: the heads, in stage 2 also LoRA on the DiT or all of it; new, or those of a checkpoint."""
    set_seed(settings.optim.seed)  # new weights are the same on every process and in every run
    heads = MotionDepthHeads(plan.heads, statistics) if plan.heads else None
    if heads and source and has_heads(source):
        heads = load_heads(source, dit.dim, len(dit.blocks))
    train_heads(heads, settings.loss.weights)
    train_dit(dit, settings, plan, source)
    model = MotionDepthModel(dit, heads, settings.stage == 2, settings.optim.gradient_checkpointing)
    # DDP would broadcast the frozen DiT, which every process has read from the same file.
    model._ddp_params_and_buffers_to_ignore = [
        name for name, value in model.state_dict(keep_vars=True).items() if not value.requires_grad
    ]
    if settings.optim.compile:
        compile_parts(dit.blocks, heads.values() if heads else ())
    return model


def build_optimizer(
    settings: Settings, model: nn.Module, start: Start
) -> tuple[torch.optim.Optimizer, LRScheduler, WeightAverage | None]:
    """AdamW over what is trained, learning rates, moving average; all go on from a step folder if there is one."""
    optim = settings.optim
    dit_learning_rate = optim.dit_learning_rate if settings.full else optim.lora_learning_rate
    optimizer = adamw(model, optim.learning_rate, dit_learning_rate, optim.weight_decay)
    updates = start.updates(optim.gradient_accumulation_steps)
    scheduler = get_scheduler(optim.lr_scheduler, optimizer, optim.lr_warmup_steps, updates)
    average = WeightAverage(named_trainable(model), optim.ema_decay) if optim.ema_decay else None
    if start.checkpoint is not None:
        continue_from(start.checkpoint, model, optimizer, scheduler, average)
    return optimizer, scheduler, average


def choose_statistics(
    accelerator: Accelerator, settings: Settings, dataset: MotionDepthDataset, source: Checkpoint | None
) -> Statistics:
    """Of the training set, as it was when the heads were made; none without heads."""
    if not settings.with_heads:
        return Statistics()
    return read_statistics(source) if source and has_heads(source) else measure_statistics(accelerator, dataset)


def step_losses(settings: Settings, model: nn.Module, batch: Batch, statistics: Statistics) -> dict[str, Tensor]:
    """One forward; every loss per clip, (b,), and their weighted sum `loss`."""
    inputs = batch.latents, batch.first, batch.context, batch.noise, batch.sigma
    predictions = model(*inputs, settings.with_flow, batch.frames)
    losses, weights = {}, {}
    if settings.with_heads:
        losses = head_losses(predictions, batch.targets, statistics.scales, bool(settings.loss.motion_balance))
        weights = settings.loss.weights
    if settings.with_flow:
        losses["flow_error"] = predictions["flow_error"]
        losses["flow_loss"] = predictions["flow_loss" if settings.loss.flow_weighting == "wan" else "flow_error"]
        weights["flow"] = settings.loss.flow_loss_weight
    return {"loss": total_loss(losses, weights), **losses}


def train(settings: Settings, stopping: Stopping, occupation: Occupation) -> None:
    # Whatever can be refused is refused before anything is loaded.
    data, optim, output = settings.data, settings.optim, settings.output
    kind = backbone_kind(settings.model.model_base_path)
    check_before_reading(settings, kind.layout)
    dataset, held_out = build_datasets(settings, kind.layout)
    backbone = kind.find(*settings.model.weights, settings.model.tokenizer_path)
    given = read_checkpoint(settings.model.heads_checkpoint) if settings.model.heads_checkpoint else None
    plan = choose_architecture(settings, backbone, given)
    start = begin(settings, dataset, backbone, given, occupation) if rank() == 0 else None
    sharding = take_request(settings.full)
    accelerator = start_accelerator(settings)
    start = agree_on_start(accelerator, settings, start)
    if start.finished:
        accelerator.print(start.finished)
        accelerator.end_training()
        return
    check_resources(accelerator, settings, backbone, plan, start, sharding is not None)

    # Data: every clip encoded, once into the cache or at every step.
    samples = prepare_samples(accelerator, settings, dataset, held_out, backbone, start)
    if data.cache_only:
        accelerator.print(f"done: {data.cache_path} holds every clip of this run")
        return
    batches = BatchLoader.of_run(accelerator, settings, samples.train, samples.encoder, start.positions)

    # Model: the DiT, and what is trained. What is trained starts as precisely as it was stored.
    source = start.checkpoint or given
    statistics = choose_statistics(accelerator, settings, dataset, source)
    dit = backbone.load_dit(
        torch.float32 if settings.full else optim.dtype, torch.device("cpu") if sharding else accelerator.device
    )
    model = build_model(settings, plan, dit, statistics, source)
    model = move_whole(model, accelerator.device) if sharding else model.to(accelerator.device)
    health = Health(optim.max_bad_steps, dataset.describe, **start.saved.get("health", {}))
    accelerator.print(f"stage {settings.stage}: {len(dataset.data)} scenes, {len(dataset)} clips an epoch")
    accelerator.print(describe_run(accelerator, settings, model, statistics, start))
    write_run_file(accelerator, settings)
    project, config, tracker_id = output.wandb_project, settings.plain(), start.saved.get("wandb_run_id")
    tracker_id = start_trackers(accelerator, project, config, output.output_path, tracker_id, start.step)
    prepared = prepare_sharded(accelerator, model, sharding) if sharding else accelerator.prepare_model(model)
    optimizer, scheduler, average = build_optimizer(settings, model, start)

    stopping.between_iterations()
    try:
        with RunLog(accelerator, output.output_path, start.total, start.step) as log:
            validation = samples.held_out and Validation(
                accelerator, settings, samples.held_out, model, statistics, log
            )
            loop(Run(
                accelerator, settings, start, model, prepared, optimizer, scheduler, average, statistics, plan.lora,
                batches, health, log, validation, occupation, tracker_id, start.best_score,
            ), stopping)  # fmt: skip
    except (Stopped, NotFiniteError):
        accelerator.end_training()  # on all processes alike
        raise
    accelerator.print(describe_end(settings, start, health))
    accelerator.end_training()


def loop(run: Run, stopping: Stopping) -> None:
    """The iterations from start to total; an iteration is one batch on every process.

    A group of iterations makes one optimizer update. Between two groups the run is whole: only there it is validated,
    saved and stopped.
    """
    settings, log, health, batches = run.settings, run.log, run.health, iter(run.batches)
    accumulation, start, total = settings.optim.gradient_accumulation_steps, run.start.step, run.start.total
    parameters = list(named_trainable(run.model).values())
    if start == 0:
        run.validate(0)
    for before in range(start, total, accumulation):
        group = range(before + 1, min(before + accumulation, total) + 1)
        for step, batch in zip(group, batches, strict=False):
            with contextlib.nullcontext() if step == group[-1] else run.accelerator.no_sync(run.prepared):
                losses = step_losses(settings, run.prepared, batch, run.statistics)
                run.accelerator.backward(losses["loss"].mean() / len(group))
            log.add(batch, losses, gradient_size(parameters))
        if before == start:  # once: a head that no loss reaches would train nothing without a word
            require_gradients(run.model)
        norm = float(whole(clip_grad_norm_(parameters, settings.optim.max_grad_norm or math.inf)))
        clips, learning_rate = log.collect(), run.scheduler.get_last_lr()[0]
        speed = log.speed(len(clips.positions), run.batches.waited())
        problem = health.problem(clips, norm)
        if problem is None:  # else weights, optimizer and learning rate stay as they are
            run.optimizer.step()
            run.scheduler.step()
            if run.average is not None:
                run.average.update()
        run.optimizer.zero_grad()
        log.update(step, clips, health, problem, lr=learning_rate, grad_norm=norm, **speed)

        if step == total or is_due(settings.data.val_steps, before, step):
            run.validate(step)
        reason = stopping.agreed() if step < total else None
        if reason or health.diverged or is_due(settings.output.save_steps, before, step):
            run.save(f"step-{step}", step)
        if health.diverged:
            raise NotFiniteError(health.diverged_message(step))
        if reason:
            raise Stopped(f"{reason} after iteration {step}; step-{step} is saved, --resume auto goes on from it")
    if not health.learned:
        raise NotFiniteError(health.nothing_learned_message())
    run.save("final", total)


def main() -> None:
    settings = parse_settings()
    limits = settings.output.max_hours, settings.output.timeout_minutes
    with Stopping(*limits) as stopping, Occupation(settings.output.output_path, say) as occupation:
        code = run_to_the_end(lambda: train(settings, stopping, occupation))
    leave(code)


if __name__ == "__main__":
    main()
