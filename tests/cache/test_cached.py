"""The cache: what it needs anew and why, damaged files, and the samples that are read from it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from motion_depth.cache import cached as cache
from motion_depth.cache.cached import CachedDataset, clip_files
from motion_depth.cache.entries import Entry
from motion_depth.clips.dataset import LoadError
from tests.support.cache_setup import CLIPS, ROWS, alter, grow, rename, touch
from tests.support.scene_files import make_operator, plain_scene

# --- what is missing, and why -----------------------------------------------------------------------------------------


def test_a_filled_cache_lacks_nothing(template, tmp_path):
    empty = template.copy(tmp_path / "copy").empty()
    new = "8 of 8 clips to encode (8 new), 2 of 2 prompts to encode (2 new)"
    assert empty.missing().summary == f"cache {empty.folder}: {new}"
    assert len(empty.missing().clips) == CLIPS
    encoder = empty.encode()
    assert (encoder.clips, encoder.prompts) == (CLIPS, 2)
    assert not empty.missing()
    assert empty.missing().summary == f"cache {empty.folder}: all 8 clips are there, all 2 prompts are there"
    again = empty.encode()
    assert (again.clips, again.prompts) == (0, 0)


ALL_CLIPS = "8 of 8 clips to encode (8 {} changed), all 2 prompts are there"
SOME_CLIPS = "{0} of 8 clips to encode ({0} files changed), all 2 prompts are there"
ALL_PROMPTS = "all 8 clips are there, 2 of 2 prompts to encode (2 {} changed)"
SETTINGS = "8 of 8 clips to encode (8 {0} changed), 2 of 2 prompts to encode (2 {0} changed)"
# Picture 0 is of window 0 alone, picture 5 of windows 1 and 3; depth and motion 5 are of all four.
# fmt: off
STALE = {
    "a picture": (lambda s: alter(s.data / "ball/rgb/step_0000.png"), SOME_CLIPS.format(1)),
    "a picture's size": (lambda s: grow(s.data / "ball/rgb/step_0005.png"), SOME_CLIPS.format(2)),
    "a picture's name": (lambda s: rename(s.data / "ball/rgb/step_0000.png"), SOME_CLIPS.format(1)),
    "depth": (lambda s: alter(s.data / "ball/distance_to_camera/0005.npy"), SOME_CLIPS.format(4)),
    "motion": (lambda s: alter(s.data / "ramp/motion_vectors/motion_vectors_0005.npy"), SOME_CLIPS.format(4)),
    "height": (lambda s: s.settings.update(height=64), ALL_CLIPS.format("settings (height)")),
    "width": (lambda s: s.settings.update(width=32), ALL_CLIPS.format("settings (width)")),
    "size": (lambda s: s.settings.update(height=64, width=32), ALL_CLIPS.format("settings (height, width)")),
    "num_frames": (
        lambda s: s.settings.update(num_frames=9),
        "8 of 8 clips to encode (8 files and settings (frame_stride, num_frames) changed), all",
    ),
    "frame_stride": (
        lambda s: s.settings.update(frame_stride=1),
        "16 of 16 clips to encode (8 files and settings (frame_stride) changed, 8 new), all",
    ),
    "units": (lambda s: s.settings.update(motion_units="ndc"), ALL_CLIPS.format("settings (motion_units)")),
    "direction": (
        lambda s: s.settings.update(motion_direction="forward"), ALL_CLIPS.format("settings (motion_direction)")
    ),
    "y_axis": (lambda s: s.settings.update(motion_y_axis="up"), ALL_CLIPS.format("settings (motion_y_axis)")),
    "frame_offset": (
        lambda s: s.settings.update(motion_frame_offset=1),
        "6 of 6 clips to encode (6 files and settings (motion_frame_offset) changed), all",
    ),
    "precision": (lambda s: setattr(s, "dtype", torch.float32), SETTINGS.format("settings (dtype)")),
    "the VAE": (lambda s: alter(s.model / "vae"), ALL_CLIPS.format("weights (vae)")),
    "the text encoder": (lambda s: grow(s.model / "text_encoder"), ALL_PROMPTS.format("weights (text_encoder)")),
    "the tokenizer": (
        lambda s: alter(s.model / "tokenizer/tokenizer.json"), ALL_PROMPTS.format("weights (tokenizer)")
    ),
    "a prompt": (
        lambda s: s.csv.write_text(ROWS.replace("A ramp.", "A steep ramp.")),
        "all 8 clips are there, 1 of 2 prompts to encode (1 new)",
    ),
    "two things": (
        lambda s: (alter(s.model / "vae"), alter(s.data / "ball/rgb/step_0000.png")),
        "8 of 8 clips to encode (7 weights (vae) changed, 1 files and weights (vae) changed)",
    ),
}
# fmt: on


@pytest.mark.parametrize("name", STALE)
def test_what_changes_the_content_is_missing_and_the_line_says_why(filled, name):
    change, expected = STALE[name]
    change(filled)
    assert filled.missing().summary.startswith(f"cache {filled.folder}: {expected}")


@pytest.mark.parametrize(
    ("function", "name", "expected"),
    [
        ("versions", "diffsynth", SETTINGS.format("versions (diffsynth)")),
        ("versions", "pillow", ALL_CLIPS.format("versions (pillow)")),
        ("versions", "tokenizers", ALL_PROMPTS.format("versions (tokenizers)")),
        ("code_digests", "data/motion.py", ALL_CLIPS.format("code (data/motion.py)")),
        ("code_digests", "model/wan.py", SETTINGS.format("code (model/wan.py)")),
    ],
)
def test_other_versions_and_other_code_make_other_entries(template, monkeypatch, function, name, expected):
    real = getattr(cache, function)
    monkeypatch.setattr(
        cache, function, lambda names: {each: "x" if each == name else at for each, at in real(names).items()}
    )
    assert template.missing().summary.endswith(expected)


def test_another_format_makes_other_entries(template, monkeypatch):
    monkeypatch.setattr(cache, "FORMAT", 0)
    assert template.missing().summary.endswith(SETTINGS.format("settings (format)"))


# fmt: off
STILL_VALID = {
    "the place of the data": lambda s: None,  # it is a copy
    "times": lambda s: [touch(path) for folder in (s.data, s.model) for path in folder.rglob("*")],
    "the DiT": lambda s: alter(s.model / "dit"),
    "the CSV": lambda s: s.csv.write_text("prompt,video,id\nA ramp.,ramp,1\nA ball.,ball,2\nA ball.,ramp,3\n"),
    "the training order": lambda s: s.order.update(seed=7, repeat=3),
    "another scene": lambda s: plain_scene(s.data / "another", size=(32, 64)),
    "motion of the first frame": lambda s: alter(s.data / "ball/motion_vectors/motion_vectors_0000.npy"),
    "a note": lambda s: (s.data / "ball/notes.txt").write_text("nice"),
    "a downloader's note": lambda s: (s.model / "tokenizer/.msc").write_text("2026-11-01"),
    "a folder": lambda s: touch(s.data / "ball/rgb"),
}
# fmt: on


@pytest.mark.parametrize("name", STILL_VALID)
def test_what_does_not_change_the_content_is_not_encoded_again(filled, name):
    STILL_VALID[name](filled)
    assert not filled.missing()


def test_a_change_is_encoded_once_and_what_was_before_stays_there(filled):
    filled.settings.update(width=32)
    alter(filled.model / "vae")
    assert filled.encode().clips == CLIPS
    assert not filled.missing()
    filled.settings.update(width=64)
    assert "8 settings (width) changed" in filled.missing().summary  # the newer of two that are equally near
    filled.settings.update(height=64)
    assert "8 settings (height, width) changed" in filled.missing().summary


@pytest.mark.parametrize(("offset", "stride"), [(0, 1), (0, 2), (-1, 2), (1, 2)])
def test_the_key_covers_every_file_that_a_clip_opens(template, monkeypatch, offset, stride):
    operator = make_operator(template.data, 32, 64, motion_frame_offset=offset, frame_stride=stride)
    scene, opened = operator.scene("ball"), set()
    read = scene.read
    monkeypatch.setattr(scene, "read", lambda *which: opened.add(scene.files[which[0]][which[1]]) or read(*which))
    operator(("ball", 2))
    files = clip_files(operator, "ball", 2)
    assert set(files) == opened
    assert len(files) == len(opened)


def test_only_the_clips_of_the_run_are_asked_for(template, tmp_path):
    job = template.copy(tmp_path / "copy").empty().job()
    visited = {job.dataset.clip_at(position)[1:] for position in (3, 4, 5)}
    assert len(visited) == 3
    assert set(job.missing(range(3, 6)).clips) == visited
    assert not job.missing([])


def test_rows_that_share_a_scene_or_a_prompt_share_its_entry(template, tmp_path):
    empty = template.copy(tmp_path / "copy").empty()
    empty.csv.write_text("video,prompt\nball,A ball.\nball,It rolls.\nramp,A ball.\n")
    assert "8 of 8 clips to encode (8 new), 2 of 2 prompts" in empty.missing().summary


def test_scenes_whose_names_look_alike_stay_apart(filled):
    for scene in ("a/b", "a_b"):
        plain_scene(filled.data / scene, size=(32, 64))
    filled.csv.write_text("video,prompt\na/b,x\n")
    filled.encode()
    filled.csv.write_text("video,prompt\na_b,x\n")
    assert "4 of 4 clips to encode (4 new)" in filled.missing().summary


# --- damage -----------------------------------------------------------------------------------------------------------


def other_key(path: Path) -> None:
    data = path.read_bytes()
    begin = data.index(b'key\\": \\"') + len(b'key\\": \\"')
    path.write_bytes(data[:begin] + (b"0" if data[begin : begin + 1] != b"0" else b"1") + data[begin + 1 :])


def flip_last_bit(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


SEEN_IN_HEADERS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": grow,
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not what you look for, but long enough for a header"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "a list as header": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"),
    "a foreign file": lambda path: save_file({"latents": torch.zeros(3)}, path),
    "a foreign file with metadata": lambda path: save_file({"a": torch.zeros(3)}, path, {"format": "pt"}),
    "another key": other_key,
}


@pytest.mark.parametrize("name", SEEN_IN_HEADERS)
def test_damaged_files_are_found_and_encoded_again(filled, name):
    victims = [filled.files(f"{kind}/**/*.safetensors")[0] for kind in ("clips", "contexts")]
    whole = [path.read_bytes() for path in victims]
    for path in victims:
        SEEN_IN_HEADERS[name](path)
    assert "1 of 8 clips to encode (1 damaged), 1 of 2 prompts to encode (1 damaged)" in filled.missing().summary
    encoder = filled.encode()
    assert (encoder.clips, encoder.prompts) == (1, 1)
    assert [path.read_bytes() for path in victims] == whole


def test_the_entry_of_another_clip_in_its_place_is_damage(filled):
    one, other = filled.files("window-0000-*")[0], filled.files("window-0001-*")[0]
    one.write_bytes(other.read_bytes())
    assert "1 of 8 clips to encode (1 damaged)" in filled.missing().summary


@pytest.mark.parametrize("damage", [*SEEN_IN_HEADERS.values(), flip_last_bit, Path.unlink])
def test_damage_after_the_start_is_a_load_error(filled, damage):
    samples = CachedDataset(filled.job())
    clip = samples.cache.dataset.clip_at(3)
    path = samples.cache.clip_entry(clip.scene, clip.window).path
    damage(path)
    found = samples[3]
    assert isinstance(found, LoadError)
    assert found.message.startswith(f"clip 3 (scene {clip.scene}, window {clip.window}): {path}: ")
    assert "start again to encode it" in found.message


def test_files_beside_the_entries_disturb_nothing(filled):
    entries = filled.files()
    for path in entries:
        path.with_name(path.name.replace(".safetensors", "-copy.safetensors")).write_bytes(path.read_bytes())
        path.with_name("window-0000-readme.safetensors").write_text("hello")
    assert not filled.missing()
    for path in entries:
        path.unlink()
    assert "8 of 8 clips to encode (8 new), 2 of 2 prompts to encode (2 new)" in filled.missing().summary


def test_an_entry_keeps_every_type_bit_for_bit(tmp_path):
    tensors = {
        "bf16": torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).reshape(256, 256),
        "f32": torch.randn(3, 4).t(),
        "u8": torch.arange(7, dtype=torch.uint8),
        "none": torch.zeros(0, 3),
    }
    entry = Entry(tmp_path / "a/b", "x", {"what": 'Ä "test"'}, {"settings": {"n": 1}})
    size = entry.write(tensors)
    found = entry.read()
    assert entry.path.stat().st_size == size
    assert entry.stale() is None
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        bits = [each.flatten().view(torch.uint8) for each in (found[name], value)]
        assert torch.equal(*bits)
