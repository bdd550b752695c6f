"""Every setting of a run, once: flag, type, default, help with unit and off value, what it may be, who may change it.

A setting is one line in the group that it concerns. The training script's flags, the checks, config.json's `run`, what
a continuation may change and what the tools share with training all follow from that line.
"""

import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from motion_depth.model.backbone import CHECKPOINTING
from motion_depth.model.heads import HEAD_SIZES
from motion_depth.readouts import READOUTS

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")  # of transformers
# By stage; stage 2 keeps the library's shifted grid, which its flow loss is weighted for.
DEFAULT_MIXTURE = {1: "1,1,1", 2: "0,0,1"}
TUNING = ("lora", "full")
NEEDED = MISSING  # in the place of a default


def fixed(
    default: object,
    help: str,
    limits: tuple[float, float] | None = None,
    choices: Collection | None = None,
    **about: bool,
) -> Field:
    """A field of a group, part of what a run is: a continued run must have the same.

    Args:
        limits: lowest and highest value of a number, whole for whole numbers; beyond them a run would never end, fill
            the memory, or diverge.
        choices: the values that there are.
        about: `local`: machines of one run may differ in it; and see `free` and `place`.
    """
    return field(default=default, metadata={"help": help, "limits": limits, "choices": choices, **about})


free = partial(fixed, free=True)  # a continued run may have another value
place = partial(fixed, place=True)  # of weights or data; where a run knows what they are, copies elsewhere will do


# fmt: off
@dataclass(frozen=True, kw_only=True)
class DataSettings:
    dataset_base_path: Path = place(NEEDED, "folder that the CSV's `video` column is relative to")
    dataset_metadata_path: Path = place(NEEDED, "CSV with columns video,prompt: the training scenes")
    val_metadata_path: Path | None = free(None, "CSV of held-out scenes to validate on; none: no validation")
    val_steps: int = free(500, "iterations between validations; 0: before and after only", (0, 10**9))
    val_clips: int = free(8, "held-out scenes that are validated on, one clip each", (0, 10**5))
    cache_path: Path | None = free(None, "folder to encode every clip into once; none: encode at every step")
    cache_only: bool = free(False, "fill --cache_path and stop")
    dataset_repeat: int = fixed(100, "clips of a scene in an epoch, from its windows in turn", (1, 10**6))
    dataset_num_workers: int = free(4, "loader processes per GPU; 0 loads in the training process",
                                    (0, 1024), local=True)
    trust_data: bool = free(False, "go on with data that a check or the run to go on with contradicts")


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    height: int = fixed(480, "pixels, a multiple of 32", (32, 4096))
    width: int = fixed(480, "pixels, a multiple of 32", (32, 4096))
    num_frames: int = fixed(49, "frames of a clip, 4k+1", (5, 4097))
    frame_stride: str = fixed("auto", "rendered frames per frame of a clip; auto: the largest that fits")
    motion_units: str = fixed("pixels", "of the files: pixels, normalized (by size) or ndc (by half of it)")
    motion_direction: str = fixed("backward", "backward (Replicator, x positive to the left) or forward")
    motion_y_axis: str = fixed("down", "direction of y in motion_vectors as backward flow: down or up")
    motion_frame_offset: int = fixed(0, "frame t's motion lies in file t + this: 0, 1 or -1")

    def arguments(self) -> dict[str, object]:
        """For `create_motion_data_operator`. Raises ValueError for a stride that is no number."""
        try:
            stride = self.frame_stride if self.frame_stride == "auto" else int(self.frame_stride)
        except ValueError:
            raise ValueError(f"--frame_stride {self.frame_stride}: expected a whole number or auto") from None
        return vars(self) | {"frame_stride": stride}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    model_base_path: Path | None = place(None, "folder of the WAN2.2-TI2V-5B release, or of the tiny model")
    model_paths: str | None = place(None, "instead: JSON list of weight files (a list within it: the shards of one "
                                    "part)", local=True)
    model_id_with_origin_paths: str | None = place(None, "instead: MODEL_ID:FILE_PATTERN,... to download into ./models")
    tokenizer_path: Path | None = place(None, "tokenizer's folder, if not google/umt5-xxl in --model_base_path")
    trust_model: bool = free(False, "go on with other weights than those the checkpoint was trained on")
    head: str | None = fixed(None, "dense (default), or linear: one linear layer per token, the baseline")
    head_size: str | None = fixed(None, "full (default) for the 5B model, small for the demo model", choices=HEAD_SIZES)
    head_taps: str | None = fixed(None, "DiT blocks that are read, as fractions of its depth; "
                                        "default 0.33,0.5,0.67,0.83")
    head_upsampling: str | None = fixed(None, "from stride 4 up: convex (default, learned) or bilinear")
    head_latent_skip: int | None = fixed(None, "1 (default): also read the noised latents. 0: off", choices=(0, 1))
    heads_checkpoint: Path | None = free(None, "checkpoint to start from; stage 2: stage 1's final/, for its heads")
    tune: str = fixed("lora", "stage 2, what trains of the DiT: lora, or full, all its weights", choices=TUNING)
    lora_rank: int = fixed(32, "stage 2: rank of the LoRA", (1, 4096))
    lora_target_modules: str = fixed("q,k,v,o,ffn.0,ffn.2", "stage 2: linear layers of the DiT that get LoRA")

    @property
    def weights(self) -> tuple[Path | None, str | None, str | None]:
        """Where the weights lie; one of the three is given."""
        return self.model_base_path, self.model_paths, self.model_id_with_origin_paths


# A flag for the loss of each quantity that the heads predict.
ReadoutWeights = make_dataclass("ReadoutWeights", [
    (f"{name}_loss_weight", float, fixed(readout.loss_weight, f"weight of the {name} loss; 0: off", (0.0, 1e6)))
    for name, readout in READOUTS.items()
], frozen=True, kw_only=True)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LossSettings(ReadoutWeights):
    flow_loss_weight: float = fixed(1.0, "stage 2: weight of the flow-matching loss; 0: off", (0.0, 1e6))
    flow_weighting: str = fixed("wan", "of noise levels in that loss: wan, the library's (0 at both ends), or none",
                                choices=("wan", "none"))
    motion_balance: int = fixed(1, "1: moving and static pixels weigh equal. 0: off", choices=(0, 1))
    loss_frames: int = fixed(0, "frames of a clip that a step decodes and compares; 0: all of them", (0, 4097))

    @property
    def weights(self) -> dict[str, float]:
        """Of each predicted quantity's loss, by its name."""
        return {each.name.removesuffix("_loss_weight"): getattr(self, each.name) for each in fields(ReadoutWeights)}


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    noise_mixture: str | None = fixed(None, "weights of uniform,low,shifted noise levels; "
                                            "default 1,1,1, stage 2: 0,0,1")


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    learning_rate: float = fixed(1e-4, "of the heads", (0.0, 10.0))
    lora_learning_rate: float = fixed(1e-4, "stage 2: of the LoRA", (0.0, 10.0))
    dit_learning_rate: float = fixed(1e-5, "stage 2 with --tune full: of the DiT's weights", (0.0, 10.0))
    ema_decay: float = fixed(0.0, "of a moving average of what is trained, which is what is validated and what "
                                  "best/ and final/ hold; 0: off", (0.0, 0.999999))
    weight_decay: float = fixed(0.01, "of AdamW; 0: off", (0.0, 10.0))
    lr_scheduler: str = fixed("constant_with_warmup", "of all learning rates", choices=SCHEDULES)
    lr_warmup_steps: int = fixed(100, "optimizer updates until the full learning rate; 0: off", (0, 10**9))
    max_grad_norm: float = fixed(1.0, "gradient clipping; 0: off", (0.0, 1e9))
    num_epochs: int = free(10, "epochs of scenes x dataset_repeat clips", (1, 10**6))
    max_steps: int = free(0, "stop after this many iterations; 0: as many as the epochs have", (0, 10**9))
    # Of these two and the number of processes the product, an update's clips, must stay (`resuming`).
    batch_size: int = free(1, "clips per GPU in one forward", (1, 1024))
    gradient_accumulation_steps: int = free(8, "iterations per optimizer update", (1, 10**5))
    gradient_checkpointing: str = free("every", "stage 2: blocks recomputed", choices=CHECKPOINTING)
    compile: bool = free(False, "torch.compile the DiT's blocks and the heads: a slow first step")
    mixed_precision: str = fixed("bf16", "bf16: trained weights stay float32", choices=("no", "bf16"))
    max_bad_steps: int = free(10, "updates in a row with inf or NaN that end the run; 0: never", (0, 10**9))
    seed: int = fixed(0, "of clip order, noise levels, noise and new weights", (0, 2**32 - 1))  # as numpy's generator

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen models, the latents and the contexts; what is trained is float32."""
        return torch.bfloat16 if self.mixed_precision == "bf16" else torch.float32


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    output_path: Path = free(NEEDED, "folder for checkpoints, log.jsonl and wandb files")
    save_steps: int = free(500, "iterations between checkpoints (at updates); 0: only final/", (0, 10**9))
    keep_last: int = free(0, "step-N folders that are kept; 0: all", (0, 10**9))
    resume: str = free("none", "auto: continue from the newest step-N; none; or a step-N folder")
    max_hours: float = free(0.0, "save and stop after so many hours, with exit code 75; 0: never", (0.0, 1e5))
    timeout_minutes: float = free(30.0, "how long a process waits for the others before it fails", (0.01, 1e5))
    report_to: str = free("none", "trackers: wandb, tensorboard, wandb,tensorboard or none. wandb is offline where "
                                  "there is no login or network")
    use_wandb: bool = free(False, "the same as wandb in --report_to")
    wandb_project: str = free("wan22-motion-depth", "wandb project")

    @property
    def trackers(self) -> str:
        """For `trackers.parse_trackers`."""
        return f"{self.report_to},wandb" if self.use_wandb else self.report_to
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    stage: int = fixed(NEEDED, "1: heads on the frozen DiT. 2: the DiT, by LoRA or wholly, and heads", choices=(1, 2))
    data: DataSettings
    clip: ClipSettings
    model: ModelSettings
    loss: LossSettings
    noise: NoiseSettings
    optim: OptimSettings
    output: OutputSettings

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Settings":
        """From values by name; what is missing has its default. Raises TypeError for a name that is no setting."""
        if unknown := values.keys() - {each.name for each in settings_of(cls)}:
            raise TypeError(f"no setting is called {min(unknown)}")
        return _build(cls, values)

    def values(self) -> dict[str, object]:
        """By name."""
        groups = [self, *(getattr(self, each.name) for each in fields(self) if is_dataclass(each.type))]
        return {
            each.name: getattr(group, each.name)
            for group in groups
            for each in fields(group)
            if not is_dataclass(each.type)
        }

    def plain(self) -> dict[str, object]:
        """By name, as JSON takes them: config.json's `run`."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(self.values().items())}

    def common(self) -> dict[str, object]:
        """What all machines of a run must be given alike. Files may have other places on each; True stands for one."""
        return {
            name: True if isinstance(value, Path) else value
            for name, value in self.values().items()
            if name not in LOCAL
        }

    def differences(self, before: Mapping[str, object], known: bool) -> list[str]:
        """In what a continuation differs from the `run` that it continues, but for what may differ; a text each.

        Args:
            before: a setting that an earlier version did not have is taken for its default.
            known: whether weights and data are compared by their content, so that their places do not count.
        """
        free = HARMLESS | PLACES if known else HARMLESS
        return [
            f"--{name} was {before.get(name)}, is {value}"
            for name, value in self.plain().items()
            if name not in free and before.get(name, DEFAULTS.get(name)) != value
        ]

    @property
    def with_flow(self) -> bool:
        """Whether the DiT's own flow-matching loss is trained on."""
        return self.stage == 2 and self.loss.flow_loss_weight > 0

    @property
    def with_heads(self) -> bool:
        """Whether there are heads: not where none of their losses has a weight."""
        return any(self.loss.weights.values())

    @property
    def full(self) -> bool:
        """Whether all of the DiT's weights train."""
        return self.stage == 2 and self.model.tune == "full"

    @property
    def mixture(self) -> str:
        """For `NoiseMixture.parse`."""
        return self.noise.noise_mixture or DEFAULT_MIXTURE[self.stage]


def settings_of(group: type) -> Iterator[Field]:
    """The fields that are settings, of a group or of all groups in one."""
    for each in fields(group):
        yield from settings_of(each.type) if is_dataclass(each.type) else [each]


def _build(group: type, values: Mapping[str, object]) -> object:
    given = {each.name: values[each.name] for each in fields(group) if each.name in values}
    return group(**given, **{each.name: _build(each.type, values) for each in fields(group) if is_dataclass(each.type)})


def flags(group: type) -> dict[str, dict[str, object]]:
    """Arguments for `argparse.ArgumentParser.add_argument` by flag, in the order of the fields."""
    found = {}
    for each in settings_of(group):
        kind = get_args(each.type)[0] if isinstance(each.type, types.UnionType) else each.type
        how = {"help": each.metadata["help"]}
        if kind is bool:
            how["action"] = "store_true"
        else:
            needed = each.default is MISSING
            how |= {"type": kind, "choices": each.metadata["choices"]}
            how |= {"required": True} if needed else {"default": each.default}
        found[f"--{each.name}"] = how
    return found


DEFAULTS = {each.name: each.default for each in settings_of(Settings) if each.default is not MISSING}
RANGES = {each.name: each.metadata["limits"] for each in settings_of(Settings) if each.metadata["limits"]}
HARMLESS, PLACES, LOCAL = (
    {each.name for each in settings_of(Settings) if each.metadata.get(what)} for what in ("free", "place", "local")
)
