"""Where a WAN model's weights lie, and whether they are the right ones.

Names and shapes come from the headers of safetensors files and from the index of .pth archives; no tensor is loaded,
but those of .pth files of torch before 1.6, which are no archives.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffsynth.configs import MODEL_CONFIGS
from diffsynth.core import ModelConfig, hash_state_dict_keys, load_state_dict
from diffsynth.models import model_loader
from safetensors import safe_open

from motion_depth.files.atomic import file_size, write_json
from motion_depth.files.digests import file_digest, weights_digest
from motion_depth.processes.machines import one_at_a_time
from motion_depth.tiny.model import register_model_configs

logger = logging.getLogger(__name__)

MODEL_FILES = {  # part -> names in a folder of the 5B release, the first that exists is taken
    "dit": ("diffusion_pytorch_model*.safetensors",),
    "text_encoder": ("models_t5_umt5-xxl-enc-bf16.safetensors", "models_t5_umt5-xxl-enc-bf16.pth"),
    "vae": ("Wan2.2_VAE.safetensors", "Wan2.2_VAE.pth"),
}
# The library takes these parts from converted files as well: they load faster, and tell what they are by their headers.
CONVERTED = "DiffSynth-Studio/Wan-Series-Converted-Safetensors"
CONVERTED_FILES = ("models_t5_umt5-xxl-enc-bf16.pth", "Wan2.2_VAE.pth")
TOKENIZER_FOLDER = "google/umt5-xxl"
WORDS = (".json", ".model")
TOKENIZER_ID = ("Wan-AI/Wan2.1-T2V-1.3B", f"{TOKENIZER_FOLDER}/")
DOWNLOAD_LOCK, DOWNLOADS = ".downloads.lock", ".downloads.json"  # in the folder that is downloaded to


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the library's prints off the console; they go to this module's debug log."""
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter):
            yield
    finally:
        for line in filter(None, map(str.strip, chatter.getvalue().splitlines())):
            logger.debug(line)


@dataclass
class WanFiles:
    """Where the parts of a model lie: one file each, the DiT possibly in several shards; and the tokenizer's folder."""

    dit: list[Path]
    text_encoder: list[Path]
    vae: list[Path]
    tokenizer: Path

    @staticmethod
    def find(
        model_base_path: Path | None, model_paths: str | None, model_ids: str | None, tokenizer: Path | None
    ) -> WanFiles:
        """The model that one of the three flags names.

        Args:
            model_base_path: a folder. model_paths: a JSON list of files. model_ids: "MODEL_ID:PATTERN,...".
            tokenizer: the tokenizer's folder, or None for the usual place.

        Raises:
            ValueError: none or several of them are given, or what they name does not fit.
        """
        if sum(value is not None for value in (model_base_path, model_paths, model_ids)) != 1:
            raise ValueError("give one of --model_base_path, --model_paths, --model_id_with_origin_paths")
        if model_base_path is not None:
            return WanFiles.in_folder(model_base_path, tokenizer)
        if model_ids is not None:
            return WanFiles.by_id(model_ids, tokenizer)
        try:
            paths = json.loads(model_paths)
        except ValueError:
            raise ValueError(f"--model_paths {model_paths}: expected a JSON list of files") from None
        return WanFiles.in_paths(paths, tokenizer)

    @staticmethod
    def in_folder(folder: Path, tokenizer: Path | None = None) -> WanFiles:
        """Finds the parts in a folder of the 5B release, or of the tiny model.

        Raises:
            ValueError: the folder or a part is missing; all missing parts are named.
        """
        if not folder.is_dir():
            raise ValueError(f"--model_base_path {folder}: no such folder")
        found = {
            part: next((hits for name in names if (hits := sorted(folder.glob(name)))), [])
            for part, names in MODEL_FILES.items()
        }
        missing = [" or ".join(MODEL_FILES[part]) for part, hits in found.items() if not hits]
        tokenizer = tokenizer or folder / TOKENIZER_FOLDER
        if not tokenizer.is_dir():
            missing.append(f"{tokenizer}/ (the tokenizer)")
        if missing:
            raise ValueError(f"--model_base_path {folder}: missing {', '.join(missing)}")
        return WanFiles(found["dit"], found["text_encoder"], found["vae"], tokenizer)

    @staticmethod
    def in_paths(
        model_paths: Sequence[str | list[str]], tokenizer: Path | None, flag: str = "--model_paths"
    ) -> WanFiles:
        """Tells the parts in a list of files apart, by the library's hash over tensor names and shapes.

        Raises:
            ValueError: a file is missing or not known to the library, or a part is not among them.
        """
        found: dict[str, list[Path]] = {}
        for entry in model_paths:
            paths = [Path(path) for path in ([entry] if isinstance(entry, str) else entry)]
            for path in paths:
                if not path.is_file():
                    raise ValueError(f"{flag}: {path} does not exist")
            register_model_configs(paths[0].parent)
            part, _ = _recognise(paths, flag)
            found[part] = paths
        missing = [part for part in MODEL_FILES if part not in found]
        if missing:
            raise ValueError(f"{flag}: no file of it is the {', '.join(missing)}; found {sorted(found)}")
        if tokenizer is None or not tokenizer.is_dir():
            raise ValueError(
                f"--tokenizer_path {tokenizer}: expected the tokenizer's folder ({TOKENIZER_FOLDER} of the release)"
            )
        return WanFiles(found["dit"], found["text_encoder"], found["vae"], tokenizer)

    @staticmethod
    def by_id(model_ids: str, tokenizer: Path | None) -> WanFiles:
        """Downloads what "MODEL_ID:PATTERN,MODEL_ID:PATTERN" names (unless it is there already), one process for all.

        Raises:
            ValueError: an entry cannot be read, nothing matches, or the download fails.
        """
        wanted = []
        for entry in model_ids.split(","):
            model_id, separator, pattern = entry.rpartition(":")
            if not separator:
                raise ValueError(f"--model_id_with_origin_paths: {entry!r} is not MODEL_ID:FILE_PATTERN")
            if pattern in CONVERTED_FILES and model_id != CONVERTED:
                model_id, pattern = CONVERTED, str(Path(pattern).with_suffix(".safetensors"))
            wanted.append((model_id, pattern))
        # The hubs' clients lock their files as well, but give up after ten minutes, which ends all processes.
        folder = download_folder()
        with one_at_a_time(folder / DOWNLOAD_LOCK, f"waiting for another process, which downloads to {folder}"):
            paths = [_download(folder, *each) for each in wanted]
            if tokenizer is None:
                tokenizer = Path(_download(folder, *TOKENIZER_ID))
        return WanFiles.in_paths(paths, tokenizer, "--model_id_with_origin_paths")

    def configs(self, parts: Sequence[str]) -> list[ModelConfig]:
        """The library's configurations of some parts."""
        return [
            ModelConfig(path=[str(path) for path in paths] if len(paths) > 1 else str(paths[0]))
            for paths in (getattr(self, part) for part in parts)
        ]

    def identity(self) -> dict[str, list[str]]:
        """By part the digest of each of its files (`weights_digest`): equal for copies, whatever they are called.

        The `tokenizer` is the fourth part; of its folder the files of words and settings count, as a whole.
        """
        words = sorted(path for path in self.tokenizer.iterdir() if path.suffix in WORDS and path.is_file())
        parts = {part: [weights_digest(path) for path in getattr(self, part)] for part in MODEL_FILES}
        return parts | {"tokenizer": [file_digest(path) for path in words]}


def download_folder() -> Path:
    """Where the library downloads to: ./models, or what DIFFSYNTH_MODEL_BASE_PATH says."""
    config = ModelConfig()
    config.reset_local_model_path()
    return Path(config.local_model_path)


def _download(folder: Path, model_id: str, pattern: str) -> str | list[str]:
    """Paths of what a pattern names; the hub is asked only until all of it has been downloaded once."""
    done, name = _downloads(folder), f"{model_id}:{pattern}"
    there = bool(done.get(name)) and all(file_size(folder / path) == size for path, size in done[name].items())
    config = ModelConfig(model_id=model_id, origin_file_pattern=pattern, skip_download=there or None)
    asked = config.require_downloading()
    try:
        with quiet():
            config.download_if_necessary()
    except Exception as error:  # the hubs' clients raise many kinds; all mean that there are no weights
        raise ValueError(
            f"--model_id_with_origin_paths: cannot download {model_id}:{pattern} ({_reason(error)}); "
            "put the weights in a folder and give it as --model_base_path"
        ) from None
    if not config.path:
        raise ValueError(f"--model_id_with_origin_paths: {model_id} has no file that matches {pattern}")
    if asked:
        found = [Path(path) for path in ([config.path] if isinstance(config.path, str) else config.path)]
        files = [file for path in found for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        done[name] = {os.path.relpath(file, folder): file.stat().st_size for file in files}
        with contextlib.suppress(OSError):  # then the hub is asked again
            write_json(folder / DOWNLOADS, done)
    return config.path


def _downloads(folder: Path) -> dict[str, dict[str, int]]:
    """What was downloaded as a whole: bytes by file, by "MODEL_ID:PATTERN"."""
    try:
        done = json.loads((folder / DOWNLOADS).read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: files for name, files in done.items() if isinstance(files, dict)} if isinstance(done, dict) else {}


def read_shapes(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Every tensor of some files by name, without its data (device "meta"); bytes of tensors are not read.

    Only the .pth files of torch before 1.6, which are no archives, are read as a whole, and dropped.
    """
    shapes = {}
    for path in paths:
        if path.suffix != ".safetensors":
            shapes |= load_state_dict(str(path), device="meta")
            continue
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is not a dict)
                shapes[name] = torch.empty(weights.get_slice(name).get_shape(), device="meta")
    return shapes


@contextlib.contextmanager
def recognised_by_shapes() -> Iterator[None]:
    """Inside, the library's loader tells what a file is from its index, and loads it once instead of twice."""
    original = model_loader.hash_model_file

    def hash_model_file(path: str | list[str]) -> str:
        return hash_state_dict_keys(read_shapes([Path(each) for each in ([path] if isinstance(path, str) else path)]))

    model_loader.hash_model_file = hash_model_file
    try:
        yield
    finally:
        model_loader.hash_model_file = original


def _recognise(paths: Sequence[Path], flag: str) -> tuple[str, dict]:
    """Which part of the model files are, and the library's arguments of it, by the library's table of hashes."""
    try:
        digest = hash_state_dict_keys(read_shapes(paths))
    except Exception as error:  # truncated or foreign: safetensors and torch raise different kinds
        raise ValueError(f"{flag}: {paths[0]} cannot be read as weights ({_reason(error)})") from None
    for entry in MODEL_CONFIGS:
        if entry["model_hash"] == digest and (part := entry["model_name"].removeprefix("wan_video_")) in MODEL_FILES:
            return part, entry.get("extra_kwargs", {})
    raise ValueError(f"{flag}: {paths[0]} is no WAN model that diffsynth knows (hash {digest})")


def _reason(error: Exception) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_weights(files: WanFiles) -> dict[str, dict]:
    """Tells what the weights are and returns the library's arguments of each part, such as the DiT's `dim`.

    Reads no more than `read_shapes` does, so it comes before anything is loaded.

    Raises:
        ValueError: a file cannot be read, is another model, or the DiT is not of WAN2.2-TI2V's kind.
    """
    arguments = {}
    for part in MODEL_FILES:
        paths = getattr(files, part)
        register_model_configs(paths[0].parent)
        found, arguments[part] = _recognise(paths, "model files")
        if found != part:
            raise ValueError(f"{paths[0]} holds the {found}, expected the {part}")
    dit = arguments["dit"]
    if not (dit.get("seperated_timestep") and dit.get("fuse_vae_embedding_in_latents")):
        raise ValueError(
            f"{files.dit[0]} is a WAN DiT of another kind; WAN2.2-TI2V is needed (first frame kept in the latents)"
        )
    return arguments
