"""What stands in a checkpoint: its files, and the fields of its config.json with what each may be.

Checked once, when a checkpoint is read: what is built from it afterwards has the type and the size that it should have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Union

from motion_depth.model.heads import HeadConfig
from motion_depth.readouts import READOUTS
from motion_depth.settings import RANGES

FORMAT = 2
LORA_FILE, STATISTICS_FILE, DIT_FILE = "lora.safetensors", "statistics.safetensors", "dit.safetensors"
SHOWN = 60  # letters of a wrong value


class Rule(NamedTuple):
    """What a value must be: a check of it, and how it is said."""

    holds: Callable[[object], bool]
    expected: str


Schema = dict[str, Union[Rule, "Schema"]]


def head_file(name: str) -> str:
    """Of the head of a quantity."""
    return f"{name}_head.safetensors"


def number(lowest: float, highest: float) -> Rule:
    """A whole number if the limits are."""
    kinds, what = ((int,), "a whole number") if isinstance(lowest, int) else ((int, float), "a number")
    return Rule(lambda value: type(value) in kinds and lowest <= value <= highest,
                f"{what} from {lowest:,} to {highest:,}")  # fmt: skip


def several(rule: Rule, fewest: int, most: int) -> Rule:
    count = f"{fewest}" if fewest == most else f"{fewest} to {most:,}"
    return Rule(lambda value: isinstance(value, list) and fewest <= len(value) <= most and all(map(rule.holds, value)),
                f"a list of {count} entries, each {rule.expected}")  # fmt: skip


def or_null(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.expected}, or null")


# Numbers among the settings without which a run cannot go on, or a tool not read clips.
NEEDED = ("height", "width", "num_frames", "batch_size", "gradient_accumulation_steps")
TEXT = Rule(lambda value: isinstance(value, str), "a text")
TRUTH = Rule(lambda value: isinstance(value, bool), "true or false")
COUNT = number(0, 10**15)
SIZE = number(1e-9, 1e9)  # of what losses are divided by
RATES = several(number(0.0, 10.0), 0, 16)
DIGESTS = several(TEXT, 0, 1000)
ANY = "*"  # stands for every name
# A key that ends in "?" may be missing: other versions do not write it. Other keys than these may stand there as well.
SCHEMA: Schema = {
    "heads": {
        "dit_dim": number(1, 2**16),
        "taps": several(number(0, 1023), 1, 64),
        "kind?": TEXT,
        "latent_channels?": number(1, 4096),
        "latent_stride?": number(4, 1024),
        "patch?": number(1, 64),
        "frames_per_latent?": number(1, 64),
        "width?": number(1, 2**14),
        "decoder_widths?": several(number(1, 2**13), 3, 3),
        "mixer_blocks?": number(0, 128),
        "latent_skip?": TRUTH,
        "upsampling?": TEXT,
    },
    "statistics": {
        **{name: number(*limits) for readout in READOUTS.values() for name, limits in readout.numbers.items()},
        "scales": {name: SIZE for readout in READOUTS.values() for name in readout.scales},
    },
    "lora": {
        "rank": number(*RANGES["lora_rank"]),
        "target_modules": several(TEXT, 1, 1000),
        "last_block?": or_null(number(0, 1023)),
    },
    "run": {
        "stage": number(1, 2),
        "frame_stride": TEXT,
        "motion_units": TEXT,
        "motion_direction": TEXT,
        "motion_y_axis": TEXT,
        "motion_frame_offset": number(-1, 1),
        "mixed_precision": TEXT,
        "dataset_metadata_path": TEXT,
        **{name if name in NEEDED else f"{name}?": number(*limits) for name, limits in RANGES.items()},
    },
    "training": {
        "step": COUNT,
        "clips": COUNT,
        "processes": number(1, 10**6),
        "scheduler": {"last_epoch": COUNT, "base_lrs": RATES, "_last_lr": RATES},
        "wandb_run_id": or_null(TEXT),
        "best_score": or_null(number(-1e30, 1e30)),
        "health": {"skipped": COUNT, "in_row": COUNT, "norms": several(number(0.0, 1e300), 0, 10**6)},
    },
    "versions": {ANY: TEXT},
    "identity?": {
        "weights": {ANY: DIGESTS},
        "data": {"rows": TEXT, "scenes": {ANY: {"sample": TEXT, "content": or_null(TEXT)}}},
    },
}  # fmt: skip


def check_config(config: Mapping, files: Collection[str]) -> None:
    """Compares a config.json with what it should be, and the checkpoint's files with what it promises.

    Args:
        config: as it was parsed. files: that the manifest names.

    Raises:
        ValueError: names the field, what was found and what was expected; or the file that is not named.
    """
    if (found := config.get("format")) != FORMAT:
        raise ValueError(f"format {_shown(found)}, expected {FORMAT}")
    run = config["run"] if isinstance(config.get("run"), dict) else {}
    stage, tuned = run.get("stage"), run.get("tune") == "full"
    trained = any(run.get(f"{name}_loss_weight", 1) for name in READOUTS)
    headless = stage == 2 and not trained and config.get("heads", 0) is None  # and without statistics, which are theirs
    absent = ({"lora"} if stage == 1 or tuned else set()) | ({"heads", "statistics"} if headless else set())
    _compare(config, {name: rule for name, rule in SCHEMA.items() if name not in absent}, "")
    if "lora" in absent and config.get("lora") is not None:
        why = "run.tune is full" if tuned else "run.stage is 1"
        raise ValueError(f"lora: found {_shown(config['lora'])}, expected null, since {why}")
    if not headless:
        _check_heads(config["heads"])
    promised = [] if headless else [*map(head_file, READOUTS), STATISTICS_FILE]
    promised += [DIT_FILE] if tuned else [LORA_FILE] if stage == 2 else []
    if missing := [name for name in promised if name not in files]:
        raise ValueError(f"promises {', '.join(missing)}, which the manifest does not name")
    if others := {LORA_FILE, DIT_FILE} & set(files) - set(promised):
        raise ValueError(f"promises no {min(others)}, which the manifest names")


def _check_heads(heads: Mapping) -> None:
    if unknown := heads.keys() - HeadConfig.__dataclass_fields__.keys():
        raise ValueError(f"heads.{min(unknown)}: found {_shown(heads[min(unknown)])}, expected no such field")
    try:
        HeadConfig(**heads)
    except ValueError as error:
        raise ValueError(f"heads: {error}") from None


def _compare(value: object, schema: Schema, where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: found {_shown(value)}, expected an object")
    for key, rule in schema.items():
        for name in value if key == ANY else [key.removesuffix("?")]:
            place = f"{where}.{name}" if where else name
            if name not in value:
                if not key.endswith("?"):
                    raise ValueError(f"{place}: missing")
            elif isinstance(rule, dict):
                _compare(value[name], rule, place)
            elif not rule.holds(value[name]):
                raise ValueError(f"{place}: found {_shown(value[name])}, expected {rule.expected}")


def _shown(value: object) -> str:
    shown = f"{value!r}"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
