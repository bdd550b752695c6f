"""What stands in a checkpoint: its files, and the fields of its config.json with what each may be.

Checked once, when a checkpoint is read: what is built from it afterwards has the type and the size that it should have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from motion_depth.model.heads import HeadConfig
from motion_depth.settings import RANGES

FORMAT = 2
MOTION_FILE, DEPTH_FILE, LORA_FILE = "motion_head.safetensors", "depth_head.safetensors", "lora.safetensors"
STATISTICS_FILE = "statistics.safetensors"
SHOWN = 60  # letters of a wrong value

Rule = Callable[[Any], str | None]  # what is expected in the place of a value; None if the value is right


def text(value: Any) -> str | None:
    return None if isinstance(value, str) else "a text"


def truth(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def whole(lowest: int, highest: int) -> Rule:
    def rule(value: Any) -> str | None:
        return (
            None if type(value) is int and lowest <= value <= highest else _between("a whole number", lowest, highest)
        )

    return rule


def number(lowest: float, highest: float) -> Rule:
    def rule(value: Any) -> str | None:
        return None if type(value) in (int, float) and lowest <= value <= highest else _between(
            "a number", lowest, highest
        )  # fmt: skip

    return rule


def several(rule: Rule, fewest: int, most: int) -> Rule:
    def of_all(value: Any) -> str | None:
        if not isinstance(value, list) or not fewest <= len(value) <= most:
            count = f"{fewest}" if fewest == most else f"{fewest} to {most:,}"
            return f"a list of {count} entries"
        expected = next(filter(None, map(rule, value)), None)
        return expected and f"{expected} in every place"

    return of_all


def by_name(rule: Rule) -> Rule:
    def of_all(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "an object"
        expected = next(filter(None, map(rule, value.values())), None)
        return expected and f"{expected} for every name"

    return of_all


def or_none(rule: Rule) -> Rule:
    def of_value(value: Any) -> str | None:
        expected = None if value is None else rule(value)
        return expected and f"{expected}, or null"

    return of_value


def scene(value: Any) -> str | None:
    digests = value if isinstance(value, dict) else {}
    known = isinstance(digests.get("sample"), str) and isinstance(digests.get("content", 0), str | None)
    return None if known else "digests as sample and content"


def _between(what: str, lowest: float, highest: float) -> str:
    return f"{what} from {lowest:,} to {highest:,}"


def _limits(lowest: float, highest: float) -> Rule:
    return (whole if isinstance(lowest, int) else number)(lowest, highest)


# Numbers among the settings without which a run cannot go on, or a tool not read clips.
NEEDED = ("height", "width", "num_frames", "batch_size", "gradient_accumulation_steps")
COUNT = whole(0, 10**15)
SIZE = number(1e-9, 1e9)  # of what losses are divided by
RATES = several(number(0, 10), 0, 16)
DIGESTS = several(text, 0, 1000)
# A key that ends in "?" may be missing: other versions do not write it. Other keys than these may stand there as well.
SCHEMA: dict[str, Any] = {
    "heads": {
        "dit_dim": whole(1, 2**16),
        "taps": several(whole(0, 1023), 1, 64),
        "kind?": text,
        "latent_channels?": whole(1, 4096),
        "width?": whole(1, 2**14),
        "decoder_widths?": several(whole(1, 2**13), 3, 3),
        "mixer_blocks?": whole(0, 128),
        "latent_skip?": truth,
        "upsampling?": text,
    },
    "statistics": {
        "log_depth": number(-20, 20),
        "scales": {"motion": SIZE, "motion_all": SIZE, "log_depth": SIZE, "log_depth_gradient": SIZE},
        "moving_share": number(0, 1),
        "background_share": number(0, 1),
    },
    "lora": {
        "rank": whole(*RANGES["lora_rank"]),
        "target_modules": several(text, 1, 1000),
        "last_block?": or_none(whole(0, 1023)),
    },
    "run": {
        "stage": whole(1, 2),
        "frame_stride": text,
        "motion_units": text,
        "motion_direction": text,
        "motion_y_axis": text,
        "motion_frame_offset": whole(-1, 1),
        "mixed_precision": text,
        "dataset_metadata_path": text,
        **{name if name in NEEDED else f"{name}?": _limits(*limits) for name, limits in RANGES.items()},
    },
    "training": {
        "step": COUNT,
        "clips": COUNT,
        "processes": whole(1, 10**6),
        "scheduler": {"last_epoch": COUNT, "base_lrs": RATES, "_last_lr": RATES},
        "wandb_run_id": or_none(text),
        "best_score": or_none(number(-1e30, 1e30)),
        "health": {"skipped": COUNT, "in_row": COUNT, "norms": several(number(0, 1e300), 0, 10**6)},
    },
    "versions": by_name(text),
    "identity?": {"weights": by_name(DIGESTS), "data": {"rows": text, "scenes": by_name(scene)}},
}  # fmt: skip


def check_config(config: Mapping[str, Any], files: Collection[str]) -> None:
    """Compares a config.json with what it should be, and the checkpoint's files with what it promises.

    Args:
        config: as it was parsed. files: that the manifest names.

    Raises:
        ValueError: names the field, what was found and what was expected; or the file that is not named.
    """
    if (found := config.get("format")) != FORMAT:
        raise ValueError(f"format {_shown(found)}, expected {FORMAT}")
    stage = config["run"].get("stage") if isinstance(config.get("run"), dict) else None
    _compare(config, SCHEMA if stage == 2 else {name: rule for name, rule in SCHEMA.items() if name != "lora"}, "")
    if stage == 1 and config.get("lora") is not None:
        raise ValueError(f"lora: found {_shown(config['lora'])}, expected null, since run.stage is 1")
    if unknown := config["heads"].keys() - HeadConfig.__dataclass_fields__.keys():
        raise ValueError(f"heads.{min(unknown)}: found {_shown(config['heads'][min(unknown)])}, expected no such field")
    try:
        HeadConfig(**config["heads"])
    except ValueError as error:
        raise ValueError(f"heads: {error}") from None
    promised = [MOTION_FILE, DEPTH_FILE, STATISTICS_FILE, *([LORA_FILE] if stage == 2 else [])]
    if missing := [name for name in promised if name not in files]:
        raise ValueError(f"promises {', '.join(missing)}, which the manifest does not name")
    if stage == 1 and LORA_FILE in files:
        raise ValueError(f"promises no {LORA_FILE}, which the manifest names")


def _compare(found: Any, schema: Mapping[str, Any], where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where}: found {_shown(found)}, expected an object")
    for key, rule in schema.items():
        name = key.removesuffix("?")
        place = f"{where}.{name}" if where else name
        if name not in found:
            if key.endswith("?"):
                continue
            raise ValueError(f"{place}: missing")
        if isinstance(rule, dict):
            _compare(found[name], rule, place)
        elif expected := rule(found[name]):
            raise ValueError(f"{place}: found {_shown(found[name])}, expected {expected}")


def _shown(value: Any) -> str:
    shown = f"{value!r}"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
