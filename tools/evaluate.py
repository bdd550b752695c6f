"""What does a trained model know of scenes that it was not trained on? Metrics, plots and pictures.

    python tools/evaluate.py --checkpoint outputs/stage1/final --model_base_path models/Wan-AI/Wan2.2-TI2V-5B \
        --dataset_base_path DATA --dataset_metadata_path data/held_out.csv --output outputs/evaluation

Every scene is encoded, noised to several levels with its first frame kept clean, and read by the heads in one DiT
forward each. At noise 0.02 the heads see the video; at 1.0 only the first frame, so what they say is a forecast.
Clips, and the convention in which motion files are read, are those of training; flags of the training script's names
say what is different here. Everything is measured at full resolution, in pixels and metres, without alignment, beside
trivial baselines. A LoRA in the checkpoint is applied. Writes metrics.json, metrics.csv, report.html and pictures; the
same command twice writes the same metrics.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from motion_depth.checkpoints.models import load_model
from motion_depth.clips.batch import Sample, reduce_item
from motion_depth.clips.clip import LoadImageSequenceWithMotionWrapper, MotionDepthClip
from motion_depth.evaluation.report import write_report
from motion_depth.evaluation.scores import (
    NOISE_LEVELS,
    metrics_of,
    not_finite,
    read_clip,
    score_frames,
    sigma_name,
    summarise,
)
from motion_depth.files.atomic import write_json, write_whole
from motion_depth.files.tables import read_metadata
from motion_depth.model import backbone_kind
from motion_depth.pictures.media import write_png
from motion_depth.pictures.panels import spread_frames, strip
from motion_depth.progress import ProgressBar
from motion_depth.readouts import READOUTS
from motion_depth.readouts.rows import truth_and_prediction_rows
from motion_depth.training.loader import encode
from tools.model_flags import (
    add_clip_flags,
    add_model_flags,
    baseline_maps,
    check_model,
    check_scenes,
    clip_operator,
    clip_settings,
    describe,
    find_backbone,
    read_run,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_model_flags(parser)
    add_clip_flags(parser)
    add("--dataset_base_path", type=Path, required=True, help="folder that the CSV's `video` column is relative to")
    add("--dataset_metadata_path", type=Path, required=True, help="CSV with columns video,prompt: the held-out scenes")
    add("--output", type=Path, required=True, help="folder for the results; a new or empty one")
    add("--noise_levels", type=float, nargs="+", default=NOISE_LEVELS, help="sigmas between 0 and 1")
    add("--windows_per_scene", type=int, default=1, help="clips of each scene, spread over its windows")
    add("--pictures", type=int, default=8, help="scenes that get a strip of pictures in the report; 0: none")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    if args.output.exists() and any(args.output.iterdir()):
        raise ValueError(f"--output {args.output} is not empty; choose a new folder")
    if wrong := [sigma for sigma in args.noise_levels if not 0 <= sigma <= 1]:
        raise ValueError(f"--noise_levels {wrong[0]}: expected numbers from 0 to 1")
    if args.windows_per_scene < 1:
        raise ValueError(f"--windows_per_scene {args.windows_per_scene}: expected at least 1")


def clips(
    rows: list[dict], operator: LoadImageSequenceWithMotionWrapper, per_scene: int
) -> Iterator[tuple[MotionDepthClip, Sample]]:
    """Every clip that is scored, and it as a sample whose position is its place in this order."""
    position = 0
    for row in rows:
        windows = operator.num_windows(row["video"])
        for window in spread_frames(windows, min(per_scene, windows)):
            clip = operator((row["video"], window))
            yield clip, reduce_item({**row, "video": clip, "position": position, "window": window})
            position += 1


def evaluate(args: argparse.Namespace) -> dict:
    check(args)
    checkpoint, dtype = read_run(args)
    settings = clip_settings(args, checkpoint)
    operator = clip_operator(args.dataset_base_path, settings, backbone_kind(args.model_base_path).layout)
    rows = read_metadata(args.dataset_metadata_path)
    scenes = [row["video"] for row in rows]
    recorded = check_scenes(operator, scenes, args.dataset_metadata_path, checkpoint, args.trust_data)
    total = sum(min(args.windows_per_scene, operator.num_windows(row["video"])) for row in rows)
    backbone = find_backbone(args)
    check_model(args, checkpoint, backbone)
    maps = baseline_maps(checkpoint, operator.height, operator.width)

    contexts = backbone.encode_prompts([row["prompt"] for row in rows], dtype, args.device)
    model = load_model(checkpoint, backbone.load_dit(dtype, args.device), args.device)
    encoder = backbone.load_encoder(("vae",), dtype, args.device, contexts)
    args.output.mkdir(parents=True, exist_ok=True)
    scores, pictures = [], []
    for clip, sample in ProgressBar(clips(rows, operator, args.windows_per_scene), total=total, unit="clip"):
        context = encode([sample], encoder)
        read = read_clip(model, sample, context, args.noise_levels, args.seed, torch.device(args.device), dtype)
        for sigma, predictions, targets in read:
            keys = {"scene": sample.scene, "window": sample.window, "sigma": sigma}
            scores.append(score_frames(predictions, targets, maps, keys))
            if sample.position < args.pictures and sigma in (min(args.noise_levels), max(args.noise_levels)):
                pictures.append(save_picture(args.output, clip, predictions, sample, sigma))
    return write_results(args, scores, pictures, {"settings": settings, "check": recorded})


def save_picture(
    folder: Path, clip: MotionDepthClip, predictions: dict[str, Tensor], sample: Sample, sigma: float
) -> Path:
    """A strip of one clip at one noise level, true and predicted."""
    of_clip = {name: value[0] for name, value in predictions.items()}
    rows = truth_and_prediction_rows(clip.frames, clip.targets, of_clip)
    title = f"{sample.scene}, noise {sigma_name(sigma)}: {sample.prompt}"
    picture = strip(rows, spread_frames(len(clip.frames)), clip.frame_ids.tolist(), title)
    path = folder / "pictures" / f"clip_{sample.position:04d}_noise_{sigma_name(sigma)}.png"
    write_png(path, picture)
    return path


def write_results(args: argparse.Namespace, scores: list[pandas.DataFrame], pictures: list[Path], data: dict) -> dict:
    """metrics.json, metrics.csv and the report; returns the metrics, and beside them the `data` they were taken on."""
    results = {"data": data, **summarise(scores)}
    rows = pandas.concat(scores, ignore_index=True)
    table = pandas.DataFrame(
        {"scene": scene, "window": window, "sigma": sigma, **csv_fields(metrics_of(part))}
        for (scene, window, sigma), part in rows.groupby(["scene", "window", "sigma"])
    )
    write_whole(args.output / "metrics.csv", table.to_csv(index=False))
    write_json(args.output / "metrics.json", results)
    title = f"{args.checkpoint} on {args.dataset_metadata_path}"
    write_report(args.output / "report.html", results, pictures, title, describe(data))
    return results


def csv_fields(metrics: dict[str, float | None]) -> dict[str, float | str | None]:
    """Metrics for a CSV: empty where no pixel counts, the word nan where a prediction is NaN."""
    return {name: "nan" if value is not None and math.isnan(value) else value for name, value in metrics.items()}


def main() -> None:
    args = parse_args()
    try:
        results = evaluate(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    titles = {
        metric: f"{label} ({readout.baselines['baseline']})"
        for readout in READOUTS.values()
        for metric, label in readout.headline.items()
    }
    print("  ".join(["noise", *(f"{title:<22}" for title in titles.values())]).rstrip())
    for sigma, found in results["overall"].items():
        pairs = [(found[name], found[f"{name}_baseline"]) for name in titles]
        texts = [f"{a:.3f} ({b:.3f})" if a is not None and b is not None else "nothing to measure" for a, b in pairs]
        print("  ".join([f"{sigma:<5}", *(f"{text:<22}" for text in texts)]).rstrip())
    print(f"report: {args.output / 'report.html'}")
    if found := not_finite(results["overall"]):
        message = f"{len(found)} metrics are not finite, the first is {found[0]}: the heads predict inf or NaN"
        print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
