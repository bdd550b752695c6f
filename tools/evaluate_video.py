"""How good is a video model? What it generates from the first frames of held-out scenes, beside what truly happens.

    python tools/evaluate_video.py --model_base_path models/Wan-AI/Wan2.2-TI2V-5B \
        --dataset_base_path DATA --dataset_metadata_path data/held_out.csv --output outputs/video_evaluation

    --checkpoint outputs/stage2/final                            # with what a run has trained: LoRA, or a whole DiT
    --train_base_path DATA --train_metadata_path data/train.csv  # also beside what the kind's training scenes do

Of each scene's first clip: the error of the velocity at fixed noise levels, beside that of the same architecture with
random weights; and a video from its first frame and prompt, made as tools/generate.py makes it, beside the first frame
held still, beside the true video after the VAE, and beside a video that is told the prompt of another kind of scene (a
kind is what the scene's folder is called). Writes metrics.json, tables.md (the printed tables), panel.png (six scenes,
true and generated) and a video of every scene.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from textwrap import shorten

import pandas
import torch
from accelerate.utils.memory import clear_device_cache
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.checkpoints.provenance import require_same_weights
from motion_depth.clips.clip import LoadImageSequenceWithMotionWrapper, MotionDepthClip
from motion_depth.data.prompts import kind_of
from motion_depth.evaluation.scores import EncodedClip, flow_errors, not_finite, sigma_name
from motion_depth.evaluation.video_tables import MODEL, NAMES, RANDOM, TRIVIAL, markdown
from motion_depth.evaluation.videos import (
    FROZEN,
    GENERATED,
    OTHER_PROMPT,
    RECONSTRUCTION,
    changed_region,
    frozen,
    mean_region,
    other_prompts,
    score_scene,
    summarise_videos,
)
from motion_depth.files.atomic import write_json, write_whole
from motion_depth.files.tables import COLUMNS, read_metadata
from motion_depth.generation.sample import Video, decode, fuse, make_video, prepared_prompts
from motion_depth.latents import WAN22
from motion_depth.model.backbone import Dit
from motion_depth.model.wan import WanEncoder
from motion_depth.pictures.media import write_png, write_video
from motion_depth.pictures.panels import PanelRow, spread_frames, strip, video
from motion_depth.processes.ranks import say
from motion_depth.progress import ProgressBar
from motion_depth.readouts.losses import trivial_flow_loss
from tools.model_flags import (
    add_clip_flags,
    add_generation_flags,
    add_model_flags,
    check_generation_flags,
    check_scenes,
    clip_operator,
    clip_settings,
    find_wan,
    plain,
    read_run,
)

NOISE_LEVELS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.02)
PANEL_SCENES, PANEL_FRAMES, PANEL_SIDE = 6, 9, 128


@dataclass(frozen=True)
class Shot:
    """A scene to foresee: its place in the CSV, its kind, what the model is told, and what it is told wrongly."""

    position: int
    scene: str
    kind: str
    prompt: str
    other_prompt: str


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_model_flags(parser, checkpoint=False)
    add_clip_flags(parser)
    add_generation_flags(parser)
    add("--dataset_base_path", type=Path, required=True, help="folder that the CSV's `video` column is relative to")
    add("--dataset_metadata_path", type=Path, required=True, help="CSV with columns video,prompt: the held-out scenes")
    add("--train_base_path", type=Path, help="folder of the training scenes; default: --dataset_base_path")
    add("--train_metadata_path", type=Path, help="CSV of training scenes of the same kinds; default: no such baseline")
    add("--noise_levels", type=float, nargs="+", default=NOISE_LEVELS, help="sigmas between 0 and 1")
    add("--panel", nargs="+", help="scenes of the panel; default: six, spread evenly over the CSV")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """What the flags alone tell. Raises ValueError."""
    check_generation_flags(args)
    if wrong := [sigma for sigma in args.noise_levels if not 0 <= sigma <= 1]:
        raise ValueError(f"--noise_levels {wrong[0]}: expected numbers from 0 to 1")
    if args.train_base_path and not args.train_metadata_path:
        raise ValueError(f"--train_base_path {args.train_base_path}: expected --train_metadata_path beside it")


def find_shots(args: argparse.Namespace) -> list[Shot]:
    """The scenes of the CSV. Raises ValueError if one has none of another kind beside it, or --panel an unknown one."""
    rows = read_metadata(args.dataset_metadata_path)
    scenes, prompts = ([row[name] for row in rows] for name in COLUMNS)
    kinds = [kind_of(*row) for row in zip(scenes, prompts, strict=True)]
    try:
        others = other_prompts(kinds, prompts)
    except ValueError as error:
        raise ValueError(f"{args.dataset_metadata_path}: {error}") from None
    args.panel = args.panel or [scenes[place] for place in spread_frames(len(scenes), PANEL_SCENES)]
    if unknown := [scene for scene in args.panel if scene not in scenes]:
        raise ValueError(f"--panel {unknown[0]}: there is no such scene in {args.dataset_metadata_path}")
    return [Shot(place, *row) for place, row in enumerate(zip(scenes, kinds, prompts, others, strict=True))]


def find_training(
    args: argparse.Namespace, settings: dict, kinds: Iterable[str], checkpoint: Checkpoint | None
) -> tuple[LoadImageSequenceWithMotionWrapper, dict[str, list[str]]] | None:
    """What loads the training scenes, and their names by kind; None if none are given.

    Raises:
        ValueError: a kind has none, or one of them is not what it should be.
    """
    if not args.train_metadata_path:
        return None
    operator = clip_operator(args.train_base_path or args.dataset_base_path, settings, WAN22)
    rows = read_metadata(args.train_metadata_path)
    scenes = {kind: [row["video"] for row in rows if kind_of(row["video"], row["prompt"]) == kind] for kind in kinds}
    if missing := [kind for kind, found in scenes.items() if not found]:
        raise ValueError(f"--train_metadata_path {args.train_metadata_path}: found no scene of {', '.join(missing)}")
    check_scenes(operator, [row["video"] for row in rows], args.train_metadata_path, checkpoint, args.trust_data)
    return operator, scenes


def training_regions(operator: LoadImageSequenceWithMotionWrapper, scenes: dict[str, list[str]]) -> dict[str, Tensor]:
    """By kind where most of its training scenes change, (t, h, w) bool."""
    shown = ProgressBar(scenes.items(), unit="kind", desc="training scenes")
    return {kind: mean_region(changed_region(operator.pictures(scene)) for scene in found) for kind, found in shown}


def run(args: argparse.Namespace) -> dict:
    check(args)
    checkpoint, dtype = read_run(args)
    settings = clip_settings(args, checkpoint)
    operator = clip_operator(args.dataset_base_path, settings, WAN22)
    shots = find_shots(args)
    scenes = [shot.scene for shot in shots]
    recorded = check_scenes(operator, scenes, args.dataset_metadata_path, checkpoint, args.trust_data)
    training = find_training(args, settings, dict.fromkeys(shot.kind for shot in shots), checkpoint)
    backbone = find_wan(args)
    if checkpoint:
        require_same_weights(checkpoint, backbone.identity(), args.trust_model, say)

    regions = training_regions(*training) if training else {}
    contexts = backbone.encode_prompts([*(shot.prompt for shot in shots), args.negative_prompt], dtype, args.device)
    pipe = backbone.load_pipeline(("dit", "vae"), dtype, args.device)
    if checkpoint:
        fuse(checkpoint, pipe)
    args.output.mkdir(parents=True, exist_ok=True)
    make = partial(
        make_video,
        pipe,
        progress=partial(ProgressBar, unit="step", leave=False),
        cfg_scale=args.cfg_scale,
        negative_prompt=args.negative_prompt,
        seed=args.seed,
        height=operator.height,
        width=operator.width,
        num_frames=operator.num_frames,
        num_inference_steps=args.num_inference_steps,
    )
    measured = Measured(args)
    with prepared_prompts(pipe, contexts):
        encoder = WanEncoder(pipe, contexts)
        for shot in ProgressBar(shots, unit="scene"):
            measured.add(shot, operator(shot.scene), regions.get(shot.kind), encoder, make)
    del pipe, make, encoder  # a second DiT needs their place
    clear_device_cache(garbage_collection=True)
    dit = backbone.random_dit(dtype, args.device, args.seed)
    for clip, context in measured.clips:
        measured.add_errors(RANDOM, dit, clip, context)
    counts = {kind: len(found) for kind, found in training[1].items()} if training else {}
    return measured.write({"data": {"settings": settings, "check": recorded}, "training_scenes": counts})


@dataclass
class Measured:
    """What is found out scene by scene.

    Attributes:
        clips: encoded, each with its prompt's context.
        errors: of the velocity, by `model` and noise level.
        tables: see `summarise_videos`.
        still: share of pixels that the VAE changes in a video that stands still.
    """

    args: argparse.Namespace
    clips: list[tuple[EncodedClip, Tensor]] = field(default_factory=list)
    errors: list[dict] = field(default_factory=list)
    tables: list[pandas.DataFrame] = field(default_factory=list)
    still: list[float] = field(default_factory=list)
    panel: list[PanelRow] = field(default_factory=list)

    def add(
        self,
        shot: Shot,
        clip: MotionDepthClip,
        training: Tensor | None,
        encoder: WanEncoder,
        make: Callable[..., Video],
    ) -> None:
        """Scores the velocity and the videos of a scene, and writes its video.

        Args:
            training: what the kind's training scenes change, see `score_scene`.
            make: `make_video`, with all that scenes have in common.
        """
        frames, pipe = clip.frames, encoder.pipe
        encoded = EncodedClip(*encoder.frames(frames[None]), shot.position)
        self.clips.append((encoded, encoder.prompt(shot.prompt)[None]))
        trivial = {sigma: trivial_flow_loss(encoded.latents, sigma) for sigma in self.args.noise_levels}
        self.errors.append({"model": TRIVIAL, **trivial})
        self.add_errors(MODEL, pipe.dit, *self.clips[-1])
        self.add_errors(OTHER_PROMPT, pipe.dit, encoded, encoder.prompt(shot.other_prompt)[None])
        held, _ = encoder.frames(frozen(frames)[None])
        self.still.append(float(changed_region(decode(pipe, held))[1:].float().mean()))
        told = partial(make, Image.fromarray(frames[0].numpy()))
        videos = {
            GENERATED: told(prompt=shot.prompt).frames,
            OTHER_PROMPT: told(prompt=shot.other_prompt).frames,
            FROZEN: frozen(frames),
            RECONSTRUCTION: decode(pipe, encoded.latents),
        }
        self.tables += score_scene(videos, clip, shot.kind, training)
        self.draw(shot, clip, videos)

    def add_errors(self, model: str, dit: Dit, clip: EncodedClip, context: Tensor) -> None:
        """Scores the velocity of a DiT. model: how it is called."""
        errors = flow_errors(dit, clip, context, self.args.noise_levels, self.args.seed)
        self.errors.append({"model": model, **errors})

    def draw(self, shot: Shot, clip: MotionDepthClip, videos: dict[str, Tensor]) -> None:
        """The scene's video, and its rows of the panel if it is one of its scenes."""
        generated = [PanelRow(NAMES[name], videos[name].numpy()) for name in (GENERATED, OTHER_PROMPT)]
        rows = [PanelRow("true", clip.frames.numpy()), *generated]
        title = f"{shot.prompt} The other prompt: {shot.other_prompt}"
        path = self.args.output / "videos" / f"{shot.position:04d}_{shot.scene.strip('./').replace('/', '_')}.mp4"
        write_video(path, video(rows, clip.frame_ids.tolist(), title), self.args.fps)
        if shot.scene in self.args.panel:
            self.panel += [replace(rows[0], label=shorten(shot.prompt, 60)), generated[0]]

    def write(self, about: dict) -> dict:
        """metrics.json, tables.md and panel.png; returns the metrics, with what they are `about`."""
        variance = float(torch.cat([clip.latents[:, :, 1:].float().flatten() for clip, _ in self.clips]).var())
        errors = pandas.DataFrame(self.errors).groupby("model").mean()
        results = {
            "flags": plain(self.args),
            **about,
            "flow": {
                "variance": variance,
                "share": {sigma_name(sigma): (errors[sigma] / variance).to_dict() for sigma in self.args.noise_levels},
            },
            "still_changed": sum(self.still) / len(self.still),
            **summarise_videos(self.tables),
        }
        frames = spread_frames(len(self.panel[0].frames), PANEL_FRAMES)
        write_png(self.args.output / "panel.png", strip(self.panel, frames, largest=PANEL_SIDE))
        write_whole(self.args.output / "tables.md", markdown(results) + "\n")
        write_json(self.args.output / "metrics.json", results)
        return results


def main() -> None:
    args = parse_args()
    try:
        results = run(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{markdown(results)}\n\npanel: {args.output / 'panel.png'}")
    if found := not_finite(results["flow"]["share"]):
        print(f"warning: the velocity's error is not finite, first that of {found[0]}", file=sys.stderr)


if __name__ == "__main__":
    main()
