"""Flags that evaluation, generation and training have in common, for the tools, and what they say about clips."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate as resize

from motion_depth.checkpoints.checkpoint import Checkpoint, read_checkpoint
from motion_depth.checkpoints.models import read_head_config, read_statistics
from motion_depth.checkpoints.provenance import require_same_weights
from motion_depth.clips.clip import LoadImageSequenceWithMotionWrapper, create_motion_data_operator
from motion_depth.data.findings import errors, raise_errors
from motion_depth.doctor.record import recorded_check
from motion_depth.latents import LatentLayout
from motion_depth.model import backbone_kind
from motion_depth.model.backbone import Backbone
from motion_depth.model.wan import Wan
from motion_depth.processes.devices import choose_device
from motion_depth.processes.ranks import say
from motion_depth.settings import ClipSettings, ModelSettings, OptimSettings, flags
from motion_depth.training.preflight import scene_findings, weigh_record


def add_model_flags(parser: argparse.ArgumentParser, checkpoint: bool = True) -> None:
    """Which model and which checkpoint, if there must be one, and what to compute on."""
    add, training = parser.add_argument, flags(ModelSettings)
    without = "" if checkpoint else "; default: the model as it is"
    add("--checkpoint", type=Path, required=checkpoint, help=f"final/, best/ or step-N of a training run{without}")
    for name in ("model_base_path", "model_paths", "model_id_with_origin_paths", "tokenizer_path", "trust_model"):
        add(f"--{name}", **training[f"--{name}"])
    add("--mixed_precision", choices=("no", "bf16"), help="default: as in training")
    add("--device", help="cuda, cuda:1, cpu; default: a GPU if there is one")
    add("--seed", type=int, default=0, help="of the noise")


def add_clip_flags(parser: argparse.ArgumentParser) -> None:
    """What clips are like and how motion files are read; what is not given is as in training (`clip_settings`)."""
    for flag, about in flags(ClipSettings).items():
        parser.add_argument(flag, **about | {"default": None, "help": f"{about['help']}; default: as in training"})
    contradicted = "go on when the recorded check of the scenes contradicts the motion flags"
    parser.add_argument("--trust_data", action="store_true", help=contradicted)


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """How videos are generated, as the library's pipeline does by default, and where they are written."""
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for the results; a new or empty one")
    add("--num_inference_steps", type=int, default=50, help="denoising steps")
    add("--cfg_scale", type=float, default=5.0, help="classifier-free guidance; 1: off, half the time")
    add("--negative_prompt", default="", help="what guidance leads away from")
    add("--fps", type=float, default=15.0, help="frames per second of the videos that are written")


def check_generation_flags(args: argparse.Namespace) -> None:
    """Raises ValueError for values that they cannot have, or an --output in which there is something."""
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise ValueError(f"--output {args.output} is not an empty folder; choose a new one")
    for name, lowest in (("num_inference_steps", 2), ("fps", 1e-3), ("cfg_scale", 0)):
        if not getattr(args, name) >= lowest:
            raise ValueError(f"--{name} {getattr(args, name)}: expected at least {lowest}")


def plain(args: argparse.Namespace) -> dict[str, object]:
    """All flags by name, as JSON takes them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def find_backbone(args: argparse.Namespace) -> Backbone:
    """The model that the flags name. Raises ValueError if there is none, or it is broken."""
    flags = args.model_base_path, args.model_paths, args.model_id_with_origin_paths, args.tokenizer_path
    return backbone_kind(args.model_base_path).find(*flags)


def read_run(args: argparse.Namespace) -> tuple[Checkpoint | None, torch.dtype]:
    """The checkpoint, and the type the DiT computes in. Raises ValueError if it is not whole, or has no such device."""
    args.device = choose_device(args.device)
    checkpoint = read_checkpoint(args.checkpoint) if args.checkpoint else None
    precision = args.mixed_precision or settings_of_run(checkpoint)["mixed_precision"]
    return checkpoint, torch.bfloat16 if precision == "bf16" else torch.float32


def settings_of_run(checkpoint: Checkpoint | None) -> Mapping[str, object]:
    """The settings that a checkpoint was trained with; without one the training script's defaults that tools need."""
    return checkpoint.config["run"] if checkpoint else vars(ClipSettings()) | vars(OptimSettings())


def find_wan(args: argparse.Namespace) -> Wan:
    """`find_backbone` for what only WAN can do. Raises ValueError for another model."""
    backbone = find_backbone(args)
    if not isinstance(backbone, Wan):
        raise ValueError(f"--model_base_path {args.model_base_path}: found another backbone, only WAN generates video")
    return backbone


def check_model(args: argparse.Namespace, checkpoint: Checkpoint, backbone: Backbone) -> None:
    """Raises ValueError if the checkpoint was not trained on these weights, or on weights of these sizes.

    What --trust_model goes on with, and that an earlier version has noted nothing, is said in a line.
    """
    read_head_config(checkpoint, backbone.dim, backbone.num_blocks)
    require_same_weights(checkpoint, backbone.identity(), args.trust_model, say)


def clip_settings(args: argparse.Namespace, checkpoint: Checkpoint | None) -> dict[str, dict]:
    """What clips are like: name -> its `value`, and where it is `from`.

    That is "flag", or "checkpoint" (as in training), or without one "default" (the training script's).
    """
    given = {each.name: getattr(args, each.name) for each in fields(ClipSettings)}
    trained, origin = settings_of_run(checkpoint), "checkpoint" if checkpoint else "default"
    return {
        name: {"value": trained[name], "from": origin} if value is None else {"value": value, "from": "flag"}
        for name, value in given.items()
    }


def clip_operator(
    base_path: Path, settings: dict[str, dict], layout: LatentLayout
) -> LoadImageSequenceWithMotionWrapper:
    """Loads clips as `clip_settings` say. Raises ValueError for values that clips cannot have."""
    clip = ClipSettings(**{name: found["value"] for name, found in settings.items()})
    return create_motion_data_operator(base_path, **clip.arguments(), layout=layout)


def check_scenes(
    operator: LoadImageSequenceWithMotionWrapper,
    scenes: Sequence[str],
    table: Path | None,
    checkpoint: Checkpoint | None,
    trust_data: bool,
) -> dict | None:
    """Looks at all scenes' files, and at what a check of them has recorded, as training does before it starts.

    Args:
        table: the CSV that lists the scenes; None: the flag --scene does. Records lie beside it; without one they are
            looked for beside the folder of the scenes and beside the CSV of the training run.

    Returns:
        For the results: the `record` that is about these very files, when they were `checked`, and how it `differs`
        from the convention that they are read in (None: not at all). None if no check is recorded.

    Raises:
        ValueError: lists every problem; or the record contradicts the convention, and `trust_data` does not go on.
    """
    title = f"--scene {scenes[0]}" if table is None else str(table)
    findings = scene_findings(operator, scenes)
    findings = findings if table else [replace(finding, row=None) for finding in findings]
    if len(problems := errors(findings)) == 1:
        raise ValueError(f"{title}: {problems[0]}")
    raise_errors(findings, title)
    places = [table] if table else [operator.base_path, Path(checkpoint.config["run"]["dataset_metadata_path"])]
    found = (recorded_check(place, operator.base_path, scenes) for place in places)
    if (record := next(filter(None, found), None)) is None:
        return None
    try:
        differs = weigh_record(record, operator.convention, title, trust_data)
    except ValueError as error:
        origin = f"as in training ({checkpoint.folder})" if checkpoint else "the training script's default"
        raise ValueError(f"{error}. What no flag says is {origin}") from None
    if differs:
        say(f"--trust_data: {differs}")
    return {"record": str(record.path), "checked": record.checked, "differs": differs}


def describe(data: dict) -> str:
    """What the results of an evaluation say of the `settings` of its clips and the recorded `check`, as a sentence."""
    given = ", ".join(f"--{name}" for name, found in data["settings"].items() if found["from"] == "flag")
    origin = f"As in training, but for {given}." if given else "All as in training."
    check = data["check"]
    if check is None:
        recorded = "No check of these scenes is recorded."
    elif check["differs"]:
        recorded = f"Read against the recorded check: {check['differs']}."
    else:
        recorded = f"The recorded check of these scenes ({check['record']}, {check['checked']}) agrees."
    clips = ", ".join(f"{name} {found['value']}" for name, found in data["settings"].items())
    return f"Clips: {clips}. {origin} {recorded}"


def baseline_maps(checkpoint: Checkpoint, height: int, width: int) -> dict[str, Tensor]:
    """The maps (h, w) of the training set's statistics, in another size than that of training if need be."""
    maps = read_statistics(checkpoint).maps
    return {name: resize(values[None, None], (height, width))[0, 0] for name, values in maps.items()}
