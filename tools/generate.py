"""A video from one image and a prompt, together with the motion and the depth that the model believes in.

    python tools/generate.py --checkpoint outputs/stage2/final --model_base_path models/Wan-AI/Wan2.2-TI2V-5B \
        --image ball.png --prompt "A ball rolls off a table." --output outputs/ball

Other beginnings, with --checkpoint, --model_base_path and --output as above:

    --dataset_base_path DATA --scene test_ball_collide/env_0/0/0 --prompt TEXT    # its first frame; compared with it
    --csv prompts.csv                                                             # columns prompt and image, or video
    --reread video.mp4 --prompt TEXT                                              # nothing is generated, only read
    --dataset_base_path DATA --csv scenes.csv --reread                            # the scenes' own clips are read

The video is that of DiffSynth's own pipeline, bit for bit: the heads only read. They read some denoising steps on the
way, the first of which sees nothing but the first frame (what they say there is a forecast), and the finished video
once more at a small noise level. Sizes, and the convention in which a scene's motion files are read, are those of
training; flags of the training script's names say what is different here. With a scene the result is compared with its
ground truth. Every output folder
receives video.mp4, motion.mp4, depth.mp4, panel.mp4, panel.png, motion.npz, depth.npz and, last, run.json.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.checkpoints.models import load_model
from motion_depth.generation.inputs import Job, csv_jobs, picture_job, scene_job, video_job
from motion_depth.generation.outputs import Shown, export, measure, summary, write_result, write_run
from motion_depth.generation.sample import Reading, generate, load_fused, prepared_prompts, read_latents
from motion_depth.latents import WAN22
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.wan import WanEncoder
from motion_depth.pictures.panels import spread_frames
from motion_depth.progress import ProgressBar
from tools.model_flags import (
    add_clip_flags,
    add_generation_flags,
    add_model_flags,
    baseline_maps,
    check_generation_flags,
    check_model,
    check_scenes,
    clip_operator,
    clip_settings,
    find_wan,
    plain,
    read_run,
)

SIZES = ("height", "width", "num_frames")
FINISHED, FIRST_FRAME = "finished video", "first frame only"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_model_flags(parser)
    add_clip_flags(parser)
    add_generation_flags(parser)
    add("--image", type=Path, help="first frame; scaled to cover the size and cut at the centre, as in training")
    add("--scene", help="instead: a scene of --dataset_base_path; its first frame, compared with its ground truth")
    add(
        "--csv", type=Path, help="instead: many, with columns prompt and image (relative to the CSV) or video (a scene)"
    )
    add("--reread", nargs="?", const=True, help="read only: a video or a folder of frames; alone: the scene's own clip")
    add("--prompt", help="text; not with --csv")
    add("--dataset_base_path", type=Path, help="folder of the scenes")
    add("--read", choices=("video", "last_step"), default="video", help="what the saved motion and depth are read off")
    add("--read_noise", type=float, default=0.02, help="noise level, 0 to 1, at which a finished video is read")
    add(
        "--read_steps",
        type=int,
        default=5,
        help="denoising steps that are read, from the first to the last; at least 2",
    )
    add("--export", nargs="+", choices=("ply", "png16"), default=[], help="point clouds; depth in mm as 16-bit PNG")
    add("--export_frames", type=int, nargs="+", default=[0], help="frames that are exported")
    add("--fov", type=float, help="horizontal field of view in degrees, for ply")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """What the flags alone tell. Raises ValueError."""
    check_generation_flags(args)
    given = [f"--{name}" for name in ("image", "scene", "csv") if getattr(args, name) is not None]
    if args.reread not in (None, True):
        given.append("--reread FILE")
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"found {found}: expected one of --image, --scene, --csv and --reread FILE")
    if args.reread is True and given == ["--image"]:
        raise ValueError("--reread --image: a picture has no motion; give a video, or a scene")
    if (args.prompt is None) == (args.csv is None):
        raise ValueError("--prompt: expected with a single video, and not with --csv, which has a column for it")
    if args.scene is not None and args.dataset_base_path is None:
        raise ValueError("--scene: expected --dataset_base_path, the folder of the scenes, beside it")
    if args.read_steps < 2:
        raise ValueError(f"--read_steps {args.read_steps}: expected at least 2")
    if not 0 <= args.read_noise <= 1:
        raise ValueError(f"--read_noise {args.read_noise}: expected a number from 0 to 1")
    if "ply" in args.export and not (args.fov and 0 < args.fov < 180):
        raise ValueError(f"--export ply: found --fov {args.fov}, expected the horizontal field of view in degrees")


def fill_sizes(args: argparse.Namespace, found: dict[str, dict]) -> None:
    """Puts the sizes of `clip_settings` into the flags and checks them. Raises ValueError."""
    for name in SIZES:
        setattr(args, name, found[name]["value"])
    WAN22.check_size(args.height, args.width)
    WAN22.check_frames(args.num_frames)
    if wrong := [frame for frame in args.export_frames if args.export and not 0 <= frame < args.num_frames]:
        raise ValueError(f"--export_frames {wrong[0]}: expected numbers from 0 to {args.num_frames - 1}")


def find_jobs(args: argparse.Namespace, checkpoint: Checkpoint) -> tuple[list[Job], dict]:
    """The videos that the flags ask for, and what run.json says of their `data`; every input is looked at.

    Raises:
        ValueError: lists everything that is wrong with the inputs.
    """
    settings = clip_settings(args, checkpoint)
    fill_sizes(args, settings)
    size, whole = (args.height, args.width), bool(args.reread)
    operator = None if args.dataset_base_path is None else clip_operator(args.dataset_base_path, settings, WAN22)
    if args.csv is not None:
        jobs = csv_jobs(args.csv, operator, size, whole)
    elif args.scene is not None:
        jobs = [scene_job(operator, args.scene, whole, args.prompt)]
    elif args.image is not None:
        jobs = [picture_job(args.image, size, args.prompt)]
    else:
        jobs = [video_job(Path(args.reread), size, args.num_frames, args.prompt)]
    scenes = [job.scene for job in jobs if job.scene is not None]
    if not scenes:
        if unused := [name for name in settings if name not in SIZES and settings[name]["from"] == "flag"]:
            raise ValueError(f"--{unused[0]}: found no scene among the inputs, and it says how scenes are read")
        return jobs, {"settings": {name: settings[name] for name in SIZES}}
    recorded = check_scenes(operator, scenes, args.csv, checkpoint, args.trust_data)
    return jobs, {"settings": settings, "check": recorded}


def run(args: argparse.Namespace) -> None:
    check(args)
    checkpoint, dtype = read_run(args)
    jobs, data = find_jobs(args, checkpoint)
    backbone = find_wan(args)
    check_model(args, checkpoint, backbone)
    maps = baseline_maps(checkpoint, args.height, args.width)

    contexts = backbone.encode_prompts([*(job.prompt for job in jobs), args.negative_prompt], dtype, args.device)
    pipe = backbone.load_pipeline(("dit", "vae"), dtype, args.device)
    # What is re-read is scored as tools/evaluate.py scores it; what is generated comes from the weights of stock users.
    model = load_model(checkpoint, pipe.dit, args.device) if args.reread else load_fused(checkpoint, pipe)
    encoder = WanEncoder(pipe, contexts)
    args.output.mkdir(parents=True, exist_ok=True)
    for job in ProgressBar(jobs, unit="video", disable=len(jobs) == 1):
        with prepared_prompts(pipe, contexts):
            shown = show(args, job, model, encoder)
        measured = measure(shown, maps)
        folder = args.output / job.name
        write_result(folder, shown, job.prompt, args.fps)
        for note in export(folder, shown, args.export, args.export_frames, args.fov):
            ProgressBar.write(note)
        record = {"source": job.source, "prompt": job.prompt, "frames": list(shown.numbers), "data": data}
        write_run(folder, record | settings(args, checkpoint) | measured)
        ProgressBar.write(f"{folder / 'panel.png'}\n{summary(measured)}")


def show(args: argparse.Namespace, job: Job, model: MotionDepthModel, encoder: WanEncoder) -> Shown:
    """Generates or re-reads one video and reads it."""
    source = job.load()
    frames = source.frames
    context = encoder.prompt(job.prompt)[None]
    readings: dict[str, Reading] = {}
    if args.reread:
        latents, first = encoder.frames(frames[None])
        levels = {FIRST_FRAME: 1.0, FINISHED: args.read_noise}
    else:
        steps = spread_frames(args.num_inference_steps, args.read_steps)
        made = generate(
            encoder.pipe,
            model.heads,
            Image.fromarray(frames[0].numpy()),
            steps,
            progress=partial(ProgressBar, unit="step", leave=False),
            cfg_scale=args.cfg_scale,
            prompt=job.prompt,
            negative_prompt=args.negative_prompt,
            seed=args.seed,
            height=args.height,
            width=args.width,
            num_frames=args.num_frames,
            num_inference_steps=args.num_inference_steps,
        )
        readings = {f"step {step} of {args.num_inference_steps}": found for step, found in made.readings.items()}
        frames, latents, first = made.frames, made.latents, made.latents[:, :, :1]
        levels = {FINISHED: args.read_noise}
    for where, sigma in levels.items():
        readings[where] = read_latents(model, latents, first, context, sigma, args.seed, job.position)
    result = FINISHED if args.read == "video" or args.reread else list(readings)[-2]
    numbers = source.numbers or range(len(frames))
    return Shown("Video" if args.reread else "Generated", frames, numbers, readings, result, source.truth)


def settings(args: argparse.Namespace, checkpoint: Checkpoint) -> dict:
    """What a run needs to be repeated, as plain values."""
    return {
        "settings": plain(args),
        "stage": checkpoint.config["run"]["stage"],
        "versions": checkpoint.config["versions"],
    }


def main() -> None:
    args = parse_args()
    try:
        run(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
