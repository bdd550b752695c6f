"""Write a tiny model in WAN2.2-TI2V-5B's shape and file layout, which trains on a laptop and loads like the real one.

    python tools/demo/make_tiny_wan.py --dataset_base_path demo/scenes --output demo/tiny_wan
    python tools/demo/make_tiny_wan.py --dataset_base_path demo/scenes --output demo/tiny_wan --dim 192 --overwrite
    python tools/demo/make_tiny_wan.py --vae demo/vae/vae.safetensors --output demo/tiny_wan
    python tools/demo/make_tiny_wan.py --like data/small_wan --output demo/random_wan    # what it was before training

The DiT and the text encoder have random weights; the VAE is the linear code, fitted on frames of the scenes, or what
tools/demo/train_vae.py trained. --like copies a model and draws only its DiT anew. The same frames, VAE or model, sizes
and seed give the same files: a model that already stands in --output is then left as it is.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from motion_depth.files.atomic import expect_file, flush
from motion_depth.files.digests import file_digest
from motion_depth.files.folders import complete_folder
from motion_depth.tiny import model as tiny
from motion_depth.tiny.block_code import BLOCK, BLOCK_FRAMES
from motion_depth.tiny.vae import SmallVideoVAE, fit_vae, load_vae

SETTINGS_FILE = "tiny_wan.json"
FILES = "files"  # under this name it says what was written beside it: a digest by path
FORMAT = 3  # of the weights; counts up when code and older tiny models no longer fit
MODEL_ENTRIES = {tiny.DIT_FILE, tiny.TEXT_ENCODER_FILE, tiny.VAE_FILE, tiny.CONFIG_FILE, SETTINGS_FILE, "google"}
MAX_WINDOWS = 128  # four frames each: all that is read to fit the VAE
CLIP_FRAMES = 9  # of the clips that the picture quality is measured on
CLIPS = 8
SIZES = {"dim": 128, "num_heads": 4, "num_layers": 10, "ffn_dim": None}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset_base_path", type=Path, help="folder with scenes to fit a VAE to; rgb/ at any depth")
    source.add_argument("--vae", type=Path, metavar="FILE", help="a trained VAE: the vae.safetensors of train_vae.py")
    source.add_argument("--like", type=Path, metavar="DIR", help="a small model, all of which is copied but its DiT")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write; MODEL_BASE_PATH of the stage scripts"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights and of the blocks that are fitted")
    parser.add_argument("--dim", type=_positive, help="width of the DiT; default: 128 (the 5B: 3072)")
    parser.add_argument("--num_heads", type=_positive, help="attention heads of the DiT; default: 4 (the 5B: 24)")
    parser.add_argument("--num_layers", type=_positive, help="blocks of the DiT; default: 10 (the 5B: 30)")
    parser.add_argument("--ffn_dim", type=_positive, help="width between a block's last layers; default: 4 --dim")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a tiny model made otherwise, if nothing in it was changed"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def find_scenes(base: Path) -> dict[str, list[Path]]:
    """Every folder under `base` that holds rgb/, with the frames in the order of their numbers.

    Raises:
        ValueError: no such folder, no frames, a frame without a number, or a scene too short for a clip.
    """
    if not base.is_dir():
        raise ValueError(f"--dataset_base_path {base}: no such folder")
    scenes = {}
    for folder, _, files in sorted(os.walk(base, followlinks=True)):
        if Path(folder).name == "rgb":
            frames = [Path(folder, name) for name in files if name.lower().endswith((".png", ".jpg", ".jpeg"))]
            scenes[Path(folder).parent.relative_to(base).as_posix()] = sorted(frames, key=_frame_number)
    scenes = {scene: frames for scene, frames in scenes.items() if frames}
    if not scenes:
        raise ValueError(f"--dataset_base_path {base}: no frames found; expected PNG or JPEG files in .../SCENE/rgb/")
    for scene, frames in scenes.items():
        if len(frames) < 1 + BLOCK_FRAMES:
            raise ValueError(f"scene {scene}: {len(frames)} frames in rgb/, expected at least {1 + BLOCK_FRAMES}")
    return scenes


def _frame_number(path: Path) -> int:
    digits = re.search(r"\d+$", path.stem)
    if digits is None:
        raise ValueError(f"{path}: expected a frame number at the end of the name")
    return int(digits[0])


def choose_windows(scenes: dict[str, list[Path]]) -> list[list[Path]]:
    """At most MAX_WINDOWS windows of four frames, spread over the scenes and over time.

    Every other window takes every second frame where the scene is long enough, as strided clips do.
    """
    names = list(scenes)
    names = [names[i] for i in _spread(len(names), MAX_WINDOWS)]
    windows = []
    for name in names:
        frames = scenes[name]
        for number, start in enumerate(_spread(len(frames) - BLOCK_FRAMES + 1, MAX_WINDOWS // len(names))):
            stride = 1 + number % 2
            if start + (BLOCK_FRAMES - 1) * stride >= len(frames):
                stride = 1
            windows.append(frames[start : start + BLOCK_FRAMES * stride : stride])
    return windows


def _spread(total: int, count: int) -> list[int]:
    """At most `count` whole numbers spread evenly over 0 .. total - 1."""
    return sorted({int(i) for i in np.linspace(0, total - 1, min(total, count)).round()})


def read_frames(paths: list[Path]) -> torch.Tensor:
    """RGB frames of one size: uint8 (T, H, W, 3)."""
    frames = []
    for path in paths:
        try:
            with Image.open(expect_file(path)) as image:
                frames.append(torch.from_numpy(np.array(image.convert("RGB"))))
        except OSError as error:
            raise ValueError(f"{path}: not a readable picture ({error})") from None
        height, width = frames[-1].shape[:2]
        if frames[-1].shape != frames[0].shape or min(height, width) < BLOCK:
            first = "x".join(map(str, frames[0].shape[:2]))
            raise ValueError(
                f"{path}: {height}x{width} pixels; expected the size of the scene's other frames ({first}), "
                f"at least {BLOCK}x{BLOCK}"
            )
    return torch.stack(frames)


def picture_quality(vae: SmallVideoVAE, scenes: dict[str, list[Path]]) -> tuple[float, float]:
    """PSNR in dB of decoded clips from the middle of some scenes: of their first frames, of the other frames."""
    names = list(scenes)
    errors = []
    for name in (names[i] for i in _spread(len(names), CLIPS)):
        frames = scenes[name]
        length = min(CLIP_FRAMES, (len(frames) - 1) // BLOCK_FRAMES * BLOCK_FRAMES + 1)
        start = (len(frames) - length) // 2
        clip = rearrange(read_frames(frames[start : start + length]), "t h w c -> c t h w").float() * (2 / 255) - 1
        height, width = (side // BLOCK * BLOCK for side in clip.shape[2:])
        clip = clip[None, :, :, :height, :width]
        squared = (vae.decode(vae.encode(clip, "cpu"), "cpu") - clip).square()
        errors.append((squared[:, :, 0].mean(), squared[:, :, 1:].mean()))
    first, rest = torch.tensor(errors).mean(dim=0)
    return tuple(float(10 * torch.log10(4 / error)) for error in (first, rest))  # peak to peak is 2


def model_stands(output: Path, settings: dict, overwrite: bool) -> bool:
    """Whether `output` already holds the model with these settings.

    Raises:
        ValueError: it holds something else that may not be replaced.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: a file of that name exists")
    if not output.exists() or not any(output.iterdir()):
        return False
    expect_own(output, unchanged=overwrite)
    if overwrite:
        return False
    found = read_settings(output)
    different = [name for name in settings if found.get(name) != settings[name]]
    missing = [name for name in (found.get(FILES) or MODEL_ENTRIES) if not (output / name).exists()]
    if different or missing:
        raise ValueError(
            f"--output {output}: holds a tiny model made otherwise ({', '.join(different) or 'files are missing'}); "
            "give --overwrite or another folder"
        )
    return True


def read_settings(output: Path) -> dict:
    """What a tiny model's folder says that it was made of; empty if it does not."""
    try:
        found = json.loads(expect_file(output / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get(FILES, {}), dict) else {}


def expect_own(output: Path, unchanged: bool) -> None:
    """Raises ValueError if a folder holds anything that this tool did not write, at any depth.

    Args:
        unchanged: whether every file must also be as it was written, which cannot be told of an older version's model.
    """
    found = read_settings(output)
    noted = found.get(FILES, {})
    files = {SETTINGS_FILE, *(noted or MODEL_ENTRIES)}
    folders = {parent.as_posix() for name in [*files, f"{tiny.TOKENIZER_FOLDER}/x"] for parent in Path(name).parents}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        known = name in files or (not noted and path.parent == output / tiny.TOKENIZER_FOLDER)
        if path.is_symlink() or not (name in folders if path.is_dir() else known and path.is_file()):
            raise ValueError(f"--output {output}: holds {name}, which is no part of a tiny model; give another folder")
        if unchanged and name in noted and noted[name] != file_digest(path):
            raise ValueError(
                f"--output {output}: {name} is not as it was written; move it away, or give another folder"
            )
    if unchanged and not noted:
        raise ValueError(
            f"--output {output}: does not say which files this tool wrote there, so none is replaced; move it away, or "
            "give another folder"
        )


def frames_digest(base: Path, scenes: dict[str, list[Path]]) -> str:
    """Changes when frames are added, taken away or rendered anew; moving the dataset does not change it."""
    digest = hashlib.sha256()
    for path in (path for frames in scenes.values() for path in frames):
        digest.update(f"{path.relative_to(base).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def fit(args: argparse.Namespace, scenes: dict[str, list[Path]]) -> SmallVideoVAE:
    windows = choose_windows(scenes)
    start = time.perf_counter()
    vae = fit_vae(map(read_frames, windows), blocks_per_window=64 * MAX_WINDOWS // len(windows), seed=args.seed)
    seconds = time.perf_counter() - start
    print(f"{len(scenes)} scenes; VAE fitted on {len(windows)} windows of {BLOCK_FRAMES} frames in {seconds:.1f} s")
    first, rest = picture_quality(vae, scenes)
    print(f"its pictures: PSNR {first:.1f} dB first frame, {rest:.1f} dB the others")
    return vae


Write = Callable[[Path], dict[str, nn.Module]]  # writes a model into a folder; what of it was made, by file name


def plan(args: argparse.Namespace) -> tuple[dict[str, object], Write]:
    """What the model is made of, and how it is written. Raises ValueError for flags or files that do not do."""
    sizes = {name: getattr(args, name) for name in SIZES}
    if args.like:
        if given := [name for name, size in sizes.items() if size is not None]:
            raise ValueError(f"--{given[0]}: --like {args.like} has its own; give one of the two")
        settings = {"like": tiny.model_digests(args.like), "seed": args.seed, "format": FORMAT}
        return settings, partial(tiny.write_untrained, model=args.like, seed=args.seed)
    sizes = {name: default if sizes[name] is None else sizes[name] for name, default in SIZES.items()}
    kwargs = tiny.dit_arguments(**sizes)
    settings = {"seed": args.seed, **sizes, "ffn_dim": kwargs["ffn_dim"], "format": FORMAT}
    write = partial(tiny.write_tiny_wan, dit_kwargs=kwargs, seed=args.seed)
    if args.vae:
        return settings | {"vae": file_digest(args.vae)}, partial(write, vae=load_vae(args.vae))
    scenes = find_scenes(args.dataset_base_path)
    settings["frames"] = frames_digest(args.dataset_base_path, scenes)
    return settings, lambda folder: write(folder, vae=fit(args, scenes))


def make(args: argparse.Namespace) -> None:
    settings, write = plan(args)
    output = args.output.resolve()
    if model_stands(output, settings, args.overwrite):
        source = "VAE" if args.vae else "model" if args.like else "frames"
        print(f"{args.output} stands: a tiny model made from the same {source} with the same settings")
        return
    with complete_folder(output) as new:
        models = write(new)
        written = sorted(path for path in new.rglob("*") if path.is_file())
        settings[FILES] = {path.relative_to(new).as_posix(): file_digest(path) for path in written}
        (new / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        for path in (*written, new / SETTINGS_FILE):
            flush(path)
        if output.exists() and any(output.iterdir()):
            expect_own(output, unchanged=True)  # again: making the new one took a while
    for name, model in models.items():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"  {name:<44}{(output / name).stat().st_size / 1e6:5.1f} MB {parameters / 1e6:6.2f} M parameters")
    print(f"tiny model written to {args.output}; train on it with MODEL_BASE_PATH={args.output}")


def main() -> None:
    args = parse_args()
    try:
        make(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
