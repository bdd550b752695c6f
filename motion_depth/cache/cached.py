"""Encoded clips on disk: latents, first-frame latents, contexts and targets, read instead of being made at every step.

    cache = ClipCache(folder, dataset, files.identity(), dtype)
    missing = cache.missing(positions)                 # on one process, for all of them
    encode_missing(cache, missing, encoder, rank, ...)  # on every process, its share; see encode.py
    samples = CachedDataset(cache)                     # in the place of the dataset: the same samples, already encoded

CACHE/clips/SCENE/WINDOW-KEY.safetensors holds `latents`, `first`, `shape` (t, h, w) and the packed targets
(packing.py), CACHE/contexts/PROMPT-KEY.safetensors one prompt's `context`, trimmed to its tokens. The key is a hash
over what the content depends on (entries.py): the bytes of the scene's files, settings, weights, our own code and the
versions of the libraries that decide what comes out. torch's is not among them: it changes no more than the rounding.
CACHE/files/ remembers the content of files that have been read (digests.py).
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from motion_depth.cache.entries import Entry
from motion_depth.cache.packing import unpack_maps
from motion_depth.clips.batch import Sample, pack_targets
from motion_depth.clips.dataset import LoadError, LoadImageSequenceWithMotionWrapper, MotionDepthDataset
from motion_depth.data.scene import RGB, Scene
from motion_depth.files.digests import SceneFiles, code_digests, scene_file_name, text_digest, versions
from motion_depth.progress import ProgressBar
from motion_depth.readouts import READOUTS
from motion_depth.readouts.targets import Targets

FORMAT = 4  # of the entries; another number makes every entry anew
SCAN_THREADS = 16  # headers are small, and on network storage each is waited for
# What turns files into frames and targets, and frames and prompts into latents and contexts; () is all of a file.
CLIP_CODE = {
    "clips/batch.py": ("pack_targets",),
    "clips/clip.py": (),
    "clips/overlapping.py": (),
    "data/arrays.py": (),
    "data/clip_frame.py": (),
    "data/scene.py": (),
    "data/motion.py": (),
    "data/convention.py": (),
    "cache/packing.py": (),
    "data/resizing.py": (),
    "data/sampling.py": (),
    "data/windows.py": (),
    "readouts/targets.py": (),
    "tiny/vae.py": (),
    "tiny/block_code.py": (),
    "tiny/networks.py": (),
    "model/backbone.py": ("Encoder",),
    "model/wan.py": ("WanEncoder",),
}
PROMPT_CODE = {"model/wan.py": ("WanEncoder",)}
CLIP_PACKAGES = ("diffsynth", "pillow")
PROMPT_PACKAGES = ("diffsynth", "transformers", "tokenizers", "ftfy")  # the library's tokenizer calls the last three


@dataclass(frozen=True)
class Missing:
    """What must be encoded before a run can train from the cache. False if nothing.

    Attributes:
        clips: (scene, window) of each. prompts: texts.
        summary: one line that says how many of how many, and why.
    """

    clips: list[tuple[str, int]]
    prompts: list[str]
    summary: str

    def __bool__(self) -> bool:
        return bool(self.clips or self.prompts)


class ClipCache:
    """The entries of a dataset's clips in a folder, for one model and one set of settings.

    A scene's files are looked at when an entry of it is first asked for.

    Args:
        folder: may hold the entries of other datasets, models and settings as well; created when needed.
        dataset: whose clips, prompts and settings these are.
        weights: `Backbone.identity()`; the VAE's, the text encoder's and the tokenizer's count.
        dtype: that the VAE and the text encoder run in, which is also that of the latents.

    Attributes:
        known: by (scene, window) the digest of a clip's files. Hand it to other processes, which then need not look.

    Raises:
        ValueError: `folder` is a file.
    """

    def __init__(
        self,
        folder: Path,
        dataset: MotionDepthDataset,
        weights: Mapping[str, object],
        dtype: torch.dtype,
    ):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--cache_path {folder}: found a file, expected a folder or nothing there yet")
        self.folder, self.dataset, self.operator = folder, dataset, dataset.operator
        self.dtype = dtype
        self.clip_made_of = {
            "weights": {"vae": weights["vae"]},
            "code": code_digests(CLIP_CODE) | _readouts_code(),
            "versions": versions(CLIP_PACKAGES),
        }
        self.prompt_made_of = {
            "settings": {"format": FORMAT, "dtype": str(dtype)},
            "weights": {part: weights[part] for part in ("text_encoder", "tokenizer")},
            "code": code_digests(PROMPT_CODE),
            "versions": versions(PROMPT_PACKAGES),
        }
        self.known: dict[tuple[str, int], str] = {}
        self._files: dict[str, SceneFiles] = {}
        self._clips: dict[tuple[str, int], Entry] = {}
        self._contexts: dict[str, Tensor] = {}

    def files(self, scene: str) -> SceneFiles:
        """A scene's files as they were when this was first called. Raises ValueError, see `SceneFiles.read`."""
        if scene not in self._files:
            paths = self.operator.scene(scene).paths
            self._files[scene] = SceneFiles.read(paths, self.folder / "files", scene_file_name(scene))
        return self._files[scene]

    def files_digest(self, scene: str, window: int) -> str:
        """Of the files that a clip is made of."""
        if (scene, window) not in self.known:
            self.known[scene, window] = self.files(scene).digest(clip_files(self.operator, scene, window))
        return self.known[scene, window]

    def clip_entry(self, scene: str, window: int) -> Entry:
        """The entry of a clip, whether it is there or not."""
        if (scene, window) not in self._clips:
            opened, stride = self.operator.scene(scene), self.operator.stride(scene)
            made_of = {
                "files": self.files_digest(scene, window),
                "settings": {
                    "format": FORMAT,
                    "dtype": str(self.dtype),
                    "first_frame": opened.frame_ids[window],
                    "frame_stride": stride,
                    **{name: getattr(self.operator, name) for name in ("num_frames", "height", "width")},
                    **{f"motion_{name}": value for name, value in asdict(self.operator.convention).items()},
                },
                **self.clip_made_of,
                "code": self.clip_made_of["code"] | _layout_code(type(opened)),
            }
            subject = {"scene": scene, "window": window}
            self._clips[scene, window] = Entry(self._folder(scene), f"window-{window:04d}", subject, made_of)
        return self._clips[scene, window]

    def context_entry(self, prompt: str) -> Entry:
        """The entry of a prompt, whether it is there or not."""
        return Entry(self.folder / "contexts", text_digest(prompt)[:16], {"prompt": prompt}, self.prompt_made_of)

    def missing(self, positions: Iterable[int]) -> Missing:
        """What the clips at these positions of the training sequence need and the cache does not have.

        Reads headers, and scenes' files that have changed or are new here although the cache has entries of the scene.
        Call it on one process and hand the result to the others, so that all divide the same list.
        """
        clips, prompts = distinct_clips(self.dataset, positions)
        scenes = dict.fromkeys(scene for scene, _ in clips)
        old = {scene: None for scene in scenes if self._has_entries(scene)}
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            read = pool.map(self.files, old)
            deque(ProgressBar(read, "comparing files", len(old), leave=False, unit="scene", delay=5), maxlen=0)
            clip_reasons = list(
                pool.map(lambda clip: self.clip_entry(*clip).stale() if clip[0] in old else "new", clips)
            )
            prompt_reasons = list(pool.map(lambda prompt: self.context_entry(prompt).stale(), prompts))
        counts = f"{_count(clip_reasons, 'clips')}, {_count(prompt_reasons, 'prompts')}"
        return Missing(
            clips=[clip for clip, reason in zip(clips, clip_reasons, strict=True) if reason],
            prompts=[prompt for prompt, reason in zip(prompts, prompt_reasons, strict=True) if reason],
            summary=f"cache {self.folder}: {counts}",
        )

    def sample(self, position: int, with_targets: bool = True) -> Sample:
        """The encoded sample at a position of the training sequence. Raises ValueError, see `Entry.read`."""
        row, scene, window = self.dataset.clip_at(position)
        prompt = self.dataset.data[row]["prompt"]
        tensors = self.clip_entry(scene, window).read()
        if prompt not in self._contexts:
            self._contexts[prompt] = self.context_entry(prompt).read()["context"]
        return Sample(
            position=int(position),
            scene=scene,
            window=window,
            prompt=prompt,
            targets=_targets(tensors) if with_targets else Targets(),
            latents=tensors["latents"],
            first=tensors["first"],
            context=self._contexts[prompt],
        )

    def targets(self, scene: str, window: int = 0) -> Targets:
        """A clip's targets, unbatched, as `pack_targets` makes them: from the cache, or else from the scene's files."""
        entry = self.clip_entry(scene, window)
        return pack_targets(self.operator((scene, window))) if entry.stale() else _targets(entry.read())

    def _folder(self, scene: str) -> Path:
        return self.folder / "clips" / scene_file_name(scene)

    def _has_entries(self, scene: str) -> bool:
        try:
            return next(self._folder(scene).iterdir(), None) is not None
        except FileNotFoundError:
            return False
        except OSError:
            return True  # its entries will say what is wrong


class CachedDataset(Dataset):
    """`MotionDepthDataset` with encoded clips: the same samples at the same positions, read from the cache.

    An error comes as a LoadError, see `raise_load_errors`.

    Args:
        with_targets: whether they are unpacked; else the samples have none.
    """

    def __init__(self, cache: ClipCache, with_targets: bool = True):
        self.cache, self.with_targets = cache, with_targets

    def __len__(self) -> int:
        return len(self.cache.dataset)

    def __getitem__(self, position: int) -> Sample | LoadError:
        try:
            return self.cache.sample(position, self.with_targets)
        except ValueError as error:
            clip = self.cache.dataset.clip_at(position)
            return LoadError(f"clip {position} (scene {clip.scene}, window {clip.window}): {error}")


def clip_files(operator: LoadImageSequenceWithMotionWrapper, scene: str, window: int) -> list[Path]:
    """Every file that a clip is made of, each once: its pictures, and what its targets need."""
    frames = operator.clip_frames(scene, window)
    needed = [(RGB, frame.number) for frame in frames]
    needed += [need for frame in frames for readout in READOUTS.values() for need in readout.needs(frame)]
    files = operator.scene(scene).files
    return list(dict.fromkeys(files[kind][number] for kind, number in needed))


def distinct_clips(dataset: MotionDepthDataset, positions: Iterable[int]) -> tuple[list[tuple[str, int]], list[str]]:
    """The (scene, window) pairs and the prompts at these positions, each once, sorted."""
    rows = range(len(dataset.data))
    every_clip = {(dataset.data[row]["video"], window) for row in rows for window in range(dataset.windows[row])}
    every_prompt = {row["prompt"] for row in dataset.data}
    clips, prompts = set(), set()
    for position in positions:
        if len(clips) == len(every_clip) and len(prompts) == len(every_prompt):
            break
        row, scene, window = dataset.clip_at(position)
        clips.add((scene, window))
        prompts.add(dataset.data[row]["prompt"])
    return sorted(clips), sorted(prompts)


def _readouts_code() -> dict[str, str]:
    """Digests of what makes each quantity's target, and of that alone: a loss may change without a new cache."""
    return {
        f"readouts/{name}": text_digest(inspect.getsource(type(each).target) + inspect.getsource(type(each).needs))
        for name, each in READOUTS.items()
    }


@cache
def _layout_code(scene: type[Scene]) -> dict[str, str]:
    """Digest of the file that a scene's layout is."""
    path = Path(inspect.getfile(scene))
    return {f"layouts/{path.name}": digest for digest in code_digests({str(path): ()}).values()}


def _targets(tensors: Mapping[str, Tensor]) -> Targets:
    t, h, w = tensors["shape"].tolist()
    return unpack_maps(tensors, (t, h, w))


def _count(reasons: Sequence[str | None], what: str) -> str:
    counts = Counter(filter(None, reasons))
    if not counts:
        return f"all {len(reasons)} {what} are there"
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{counts.total()} of {len(reasons)} {what} to encode ({listed})"
