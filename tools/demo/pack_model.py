"""Put a DiT that the training script has trained in the place of a small model's random one, with a card.

    python tools/demo/pack_model.py --model pretrain/start --checkpoint pretrain/dit/final --vae pretrain/vae \
        --output pretrain/model

card.json says what the weights were made of: the scenes, what the VAE and the DiT were trained on, how long, on what
machine, and to which errors; `fixed_clip` has the flow-matching error on one clip (fixed_clip.py), to know them by.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from pathlib import Path

import pandas
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from motion_depth.checkpoints.checkpoint import Checkpoint, read_checkpoint
from motion_depth.checkpoints.schema import DIT_FILE
from motion_depth.files.atomic import expect_file, flush
from motion_depth.files.folders import complete_folder
from motion_depth.model.tuning import load_dit
from motion_depth.model.wan import Wan
from motion_depth.tiny.model import DIT_FILE as MODEL_FILE
from motion_depth.training.log import LOG_FILE
from tools.demo.fixed_clip import errors_on_fixed_clip
from tools.demo.scenes.write import SETTINGS_FILE as SCENES_FILE

CARD = "card.json"
LAST = 500  # updates that a loss at the end is the mean of
TOLD = (
    *("batch_size", "num_frames", "frame_stride", "height", "width", "dit_learning_rate", "lr_scheduler", "ema_decay"),
    *("noise_mixture", "flow_weighting", "mixed_precision"),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="what make_tiny_wan.py wrote and the DiT was trained on")
    add("--checkpoint", type=Path, required=True, help="final/ of a run with --tune full")
    add("--vae", type=Path, required=True, help="what train_vae.py wrote, with the model's VAE")
    add("--output", type=Path, required=True, help="a new folder")
    return parser.parse_args()


def card_of(checkpoint: Checkpoint, vae: Path) -> dict[str, object]:
    """What the weights were made of. Raises ValueError if a file that says it is missing or broken."""
    run, output = checkpoint.config["run"], checkpoint.folder.parent
    scenes = json.loads(expect_file(Path(run["dataset_base_path"]) / SCENES_FILE).read_text())
    rows = pandas.read_csv(run["dataset_metadata_path"])
    log = pandas.read_json(expect_file(output / LOG_FILE), lines=True)
    trained = json.loads(expect_file(vae / "scores.json").read_text())
    seconds = (run["batch_size"] / log["clips_per_s"]).sum()
    steps = int(log["step"].iloc[-1])
    return {
        "scenes": scenes | {"scenes": len(rows)},
        "vae": {"settings": trained["settings"], **trained["scores"][-1]},
        "dit": {
            "steps": steps,
            "clips": steps * run["batch_size"],
            "hours": round(seconds / 3600, 2),
            f"flow_error_last_{LAST}": round(float(log["flow_error"].tail(LAST).mean()), 4),
            **{name: run[name] for name in TOLD},
        },
        "machine": machine(),
        "torch": torch.__version__,
    }


def machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"


def pack(options: argparse.Namespace) -> None:
    if options.output.exists():
        raise ValueError(f"--output {options.output}: there is something of that name; give a new folder")
    checkpoint, backbone = read_checkpoint(options.checkpoint), Wan.in_folder(options.model)
    if not checkpoint.has(DIT_FILE):
        raise ValueError(f"--checkpoint {options.checkpoint}: has no {DIT_FILE}; give one of a run with --tune full")
    with torch.device("meta"):
        load_dit(backbone.empty_dit(torch.bfloat16), checkpoint.tensors(DIT_FILE), str(options.checkpoint))
    card = card_of(checkpoint, options.vae)
    with complete_folder(options.output.resolve()) as new:
        shutil.copytree(options.model, new, dirs_exist_ok=True)
        (new / "tiny_wan.json").unlink(missing_ok=True)  # says what make_tiny_wan.py wrote, which this is no more
        shutil.copyfile(checkpoint.folder / DIT_FILE, new / MODEL_FILE)
        pipe = Wan.in_folder(new).load_pipeline(("dit", "text_encoder", "vae"), torch.float32, "cpu")
        card["fixed_clip"] = errors_on_fixed_clip(pipe)
        (new / CARD).write_text(json.dumps(card, indent=2) + "\n")
        for path in new.rglob("*"):
            if path.is_file():
                flush(path)
    size = sum(path.stat().st_size for path in options.output.rglob("*"))
    print(f"{options.output}: {size / 1e6:.2f} MB, {card['dit']['clips']:,} clips in {card['dit']['hours']} hours")


def main() -> int:
    try:
        pack(parse_arguments())
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
