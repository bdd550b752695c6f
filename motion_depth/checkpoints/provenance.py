"""Which weights and which data a checkpoint was trained on, by their content, and whether those here are the same.

config.json holds it as `identity`: `weights`, by part what `Backbone.identity` says, and `data`, see `data_identity`.
Copies under other paths are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.clips.dataset import MotionDepthDataset, Scene
from motion_depth.files.digests import SceneFiles, sample_digest, sampled, scene_file_name, text_digest
from motion_depth.model.backbone import Backbone

THREADS = 16  # they wait for the disk, or for a server
SHOWN = 8  # digits of a digest, in messages
Say = Callable[[str], None]


def identify(
    backbone: Backbone, dataset: MotionDepthDataset, cache_path: Path | None, trust_model: bool, trust_data: bool,
    say: Say, heads: Checkpoint | None, resumed: Checkpoint | None,
) -> dict:  # fmt: skip
    """What a run is about to train on, for config.json, after comparing it with what it starts from.

    Args:
        cache_path: see `data_identity`.
        trust_model, trust_data: whether to go on with others.
        say: is given a line about what cannot be compared, or differs and is trusted.
        heads: that the heads start from, if any. resumed: what the run goes on from, if anything.

    Raises:
        ValueError: the run that it goes on with had other weights or data, or the heads were trained on other weights.
    """
    weights = backbone.identity()
    if start := resumed or heads:
        require_same_weights(start, weights, trust_model, say)
    before = resumed.config.get("identity", {}).get("data", {"scenes": {}})["scenes"] if resumed else {}
    read = [scene for scene, its in before.items() if its["content"]] if cache_path else []
    data = data_identity(dataset, cache_path, read)
    if before:
        require_same_data(resumed.folder, resumed.config["identity"]["data"], data, trust_data, say)
    return {"weights": weights, "data": data}


def require_same_weights(checkpoint: Checkpoint, weights: Mapping[str, Sequence[str]], trust: bool, say: Say) -> None:
    """Compares weights (`Backbone.identity`) with those that a checkpoint was trained on.

    Args:
        trust: whether to go on with others. say: see `identify`.

    Raises:
        ValueError: they are others; the message names the parts.
    """
    if (identity := checkpoint.config.get("identity")) is None:
        say(
            f"{checkpoint.folder}: written by an earlier version, which did not note the weights and the data; "
            "they cannot be compared with those here"
        )
        return
    differing = [
        f"{part} (found {_shown(found)}, expected {_shown(identity['weights'].get(part, ['none']))})"
        for part, found in weights.items()
        if identity["weights"].get(part) != list(found)
    ]
    if differing:
        _refuse(f"{checkpoint.folder}: was trained on other weights: {', '.join(differing)}", trust, "model", say)


def require_same_data(folder: Path, before: Mapping, now: Mapping, trust: bool, say: Say) -> None:
    """Compares a training set (`data_identity`) with that of the run in a folder. Raises ValueError, naming a scene."""
    old, new = before["scenes"], now["scenes"]
    gone, added = [scene for scene in old if scene not in new], [scene for scene in new if scene not in old]
    changed = [scene for scene in old if scene in new and _differ(old[scene], new[scene])]
    differing = [f"{_named(gone)} missing"] if gone else []
    differing += [f"{_named(added)} new"] if added else []
    if changed:
        kind = _differ(old[changed[0]], new[changed[0]])
        digests = f"found {_shown([new[changed[0]][kind]])}, expected {_shown([old[changed[0]][kind]])}"
        differing.append(f"other files in {_named(changed)} ({digests})")
    if not gone and not added and before["rows"] != now["rows"]:
        differing.append(f"other rows, prompts or another order (found {now['rows']}, expected {before['rows']})")
    if differing:
        _refuse(f"--resume {folder}: that run was trained on other data: {'; '.join(differing)}", trust, "data", say)


def data_identity(dataset: MotionDepthDataset, cache_path: Path | None, read: Collection[str] = ()) -> dict:
    """What a training set is.

    Args:
        cache_path: where `SceneFiles` remembers files' content, if anywhere.
        read: scenes whose files are read in any case if they are not remembered; the cache would read them next.

    Returns:
        rows: number and digest of the CSV's scenes and prompts in their order.
        scenes: by scene a `sample` (every file's name and size, the content of those of three frames) and the `content`
            (of all files; None unless it is remembered or was read).

    Raises:
        ValueError: a file cannot be read.
    """
    rows = [[row["video"], row["prompt"]] for row in dataset.data]
    scenes = list(dict.fromkeys(scene for scene, _ in rows))
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda each: _scene(dataset.operator.scene(each), cache_path, each in read), scenes)
        return {
            "rows": f"{len(rows)}: {text_digest(json.dumps(rows))[:SHOWN]}",
            "scenes": dict(zip(scenes, found, strict=True)),
        }


def _scene(scene: Scene, cache_path: Path | None, read: bool) -> dict[str, str | None]:
    paths = scene.paths
    known = None
    if cache_path is not None:
        look = SceneFiles.read if read else SceneFiles.known
        known = look(paths, cache_path / "files", scene_file_name(scene.name))
    chosen = dict.fromkeys(its[frame] for frame in sampled(scene.frame_ids) for its in scene.files.values())
    return {"sample": sample_digest(paths, chosen, known and known.digests), "content": known and known.digest()}


def _differ(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> str | None:
    """By which digest two states of a scene differ: that of the content, if both have one, or else of the sample."""
    kind = "content" if one["content"] and other["content"] else "sample"
    return kind if one[kind] != other[kind] else None


def _refuse(what: str, trust: bool, flag: str, say: Say) -> None:
    if not trust:
        raise ValueError(f"{what}. Give those it was trained on, or --trust_{flag} to go on with these")
    say(f"--trust_{flag}: {what}")


def _named(scenes: Sequence[str]) -> str:
    return scenes[0] if len(scenes) == 1 else f"{scenes[0]} and {len(scenes) - 1} more"


def _shown(digests: Sequence[str]) -> str:
    return "+".join(digest[:SHOWN] for digest in digests)
