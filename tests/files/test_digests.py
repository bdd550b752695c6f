"""What files, weights and code are by their content; what is remembered, and that nothing unread is taken for known."""

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import motion_depth
from motion_depth.cache import cached as cache
from motion_depth.cache.packing import Packer, assemble
from motion_depth.clips.batch import reduce_item
from motion_depth.clips.overlapping import read_overlapping
from motion_depth.files import digests as identity
from motion_depth.files.digests import SceneFiles, code_digests, file_digest, weights_digest
from motion_depth.model.wan import Wan
from tests.support.cache_setup import CLIPS, CacheSetup, alter, touch
from tests.support.scene_files import make_operator

PACKAGE = Path(motion_depth.__file__).parent


@pytest.fixture
def filled(tmp_path) -> CacheSetup:
    setup = CacheSetup(tmp_path)
    setup.encode()
    return setup


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """Scenes' files whose content is read to know it."""
    seen, original = [], identity.file_digest
    monkeypatch.setattr(identity, "file_digest", lambda path: seen.append(path) or original(path))
    return seen


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_what_has_not_changed_or_has_no_entry_is_not_read(filled, read):
    assert not filled.missing()
    assert read == []
    touch(filled.data / "ball/rgb/step_0003.png")
    for _ in range(2):
        assert not filled.missing()
        assert len(read) == 36
    assert {path.relative_to(filled.data).parts[0] for path in read} == {"ball"}
    filled.empty()
    assert len(filled.missing().clips) == CLIPS
    assert len(read) == 36


def test_a_forged_time_is_noticed(filled):
    """Size and time of modification are put back, as a copy with `cp -p` would."""
    path = filled.data / "ramp/distance_to_camera/0005.npy"
    before = path.stat()
    alter(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert "4 of 8 clips to encode (4 files changed)" in filled.missing().summary


def test_copies_on_two_machines_share_the_entries_and_keep_what_each_knows(filled, tmp_path, read):
    """One cache, and the scenes in another place with other times."""
    other = filled.copy(tmp_path / "other")
    for path in other.data.rglob("*.*"):
        path.write_bytes(path.read_bytes())
    other.folder = filled.folder
    for _ in range(2):
        assert not other.missing()
        assert not filled.missing()
    assert len(read) == 72  # once, of the copy


@pytest.mark.parametrize("content", [b"", b"[]", b"[1]", b"{", b'["x"]'])
def test_damaged_memories_are_made_anew(filled, read, content):
    for path in filled.files("files/*.json"):
        path.write_bytes(content)
    for _ in range(2):
        assert not filled.missing()
        assert len(read) == 72


def test_a_cache_that_is_only_read_from_works(filled, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "x")

    shutil.rmtree(filled.folder / "files")
    monkeypatch.setattr(identity, "write_whole", refuse)
    assert not filled.missing()


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("a")
    original = identity.file_digest
    monkeypatch.setattr(identity, "file_digest", lambda path: (original(path), touch(path))[0])
    with pytest.raises(ValueError, match=f"{tmp_path / 'a'}: changed while it was read"):
        SceneFiles.read([tmp_path / "a"], tmp_path / "known", "scene")
    assert not (tmp_path / "known").exists()


# --- weights ----------------------------------------------------------------------------------------------------------


def tensors(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"layer{number}": torch.randn(300, 300, generator=generator) for number in range(20)} | changes


def test_weights_are_the_same_wherever_and_whenever_they_were_copied(tmp_path):
    save_file(tensors(), tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    os.utime(tmp_path / "b.safetensors", (1, 1))
    assert weights_digest(tmp_path / "a.safetensors") == weights_digest(tmp_path / "b.safetensors")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_any_tensor_that_changes_makes_other_weights(tmp_path, name):
    """In an archive, whose end holds a checksum of each tensor, also any single number."""
    one = tensors()["layer7"].clone()
    one[150, 77] += 1e-6
    others = [tensors(**{layer: -value}) for layer, value in tensors().items()]
    others += [dict(list(tensors().items())[:-1]), *([tensors(layer7=one)] if name == "a.pth" else [])]
    digests = set()
    for values in (tensors(), *others):
        (save_file if name == "a.safetensors" else torch.save)(values, tmp_path / name)
        digests.add(weights_digest(tmp_path / name))
    assert len(digests) == 1 + len(others)


def test_a_sample_of_large_weights_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # a sparse file: no blocks on the disk
    asked, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, begin: asked.append(length) or pread(file, length, begin))
    digests = [weights_digest(path)]
    assert sum(asked) < 10 << 20
    with path.open("r+b") as file:
        file.seek(5 * identity.SAMPLE_EVERY)
        file.write(b"x")
        file.flush()
        digests.append(weights_digest(path))
        file.truncate((10 << 30) + 1)
        digests.append(weights_digest(path))
    assert len(set(digests)) == 3


@pytest.mark.parametrize("content", [b"", b"x", bytes(9), (8).to_bytes(8, "little") + b'{"a": 1}', b"\xff" * 100])
def test_files_that_are_no_weights_have_a_digest_too(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert weights_digest(tmp_path / "a.safetensors") == weights_digest(tmp_path / "a.safetensors")


@pytest.mark.parametrize("digest", [file_digest, weights_digest])
@pytest.mark.parametrize("path", ["a", "."])
def test_what_cannot_be_read_is_an_error(tmp_path, digest, path):
    with pytest.raises(ValueError, match=f"{tmp_path / path}: not readable"):
        digest(tmp_path / path)


# --- code -------------------------------------------------------------------------------------------------------------

CODE = '''"""Doc."""
import math

LIMIT = 3  # metres


def area(radius):
    """Of a circle."""
    return math.pi * radius**2


class Ball:
    """A ball."""

    colour: str = "red"
'''
SAME = (("Doc.", "Other words."), ("  # metres", ""), ('"""Of a circle."""\n    ', ""), ("radius**2", "(radius ** 2)"),
        ('"red"', "'red'"), ("import math\n", "# note\nimport math\n\n"))  # fmt: skip
OTHER = (("LIMIT = 3", "LIMIT = 4"), ("radius**2", "radius**3"), ('"red"', '"blue"'),
         ("import math", "import cmath as math"))  # fmt: skip


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(identity, "__file__", str(tmp_path / "files/digests.py"))
    (tmp_path / "a.py").write_text(CODE)
    return tmp_path


@pytest.mark.parametrize("change", SAME + OTHER)
def test_other_code_has_another_digest_whatever_its_comments_words_and_layout(package, change):
    before = code_digests({"a.py": ()})
    assert change[0] in CODE
    (package / "a.py").write_text(CODE.replace(*change))
    assert (code_digests({"a.py": ()}) == before) == (change in SAME)


def test_of_a_file_only_what_is_asked_for_counts(package):
    wanted = {"a.py": ("area", "LIMIT")}
    before = code_digests(wanted)
    (package / "a.py").write_text(CODE.replace('"red"', '"blue"').replace("import math", "import math, sys"))
    assert code_digests(wanted) == before
    for change in OTHER[:2]:
        (package / "a.py").write_text(CODE.replace(*change))
        assert code_digests(wanted) != before
    with pytest.raises(ValueError, match=r"a\.py: has no volume"):
        code_digests({"a.py": ("volume",)})


def called(run) -> set[tuple[str, str]]:
    """(file, outermost name) of the code of this package that runs, in all threads."""
    seen = set()

    def profile(frame, event, _):
        code = frame.f_code
        if event == "call" and Path(code.co_filename).is_relative_to(PACKAGE):
            file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            seen.add((file, getattr(code, "co_qualname", code.co_name).split(".")[0]))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


def test_the_key_knows_all_code_that_makes_a_clip(filled, tiny_wan, monkeypatch):
    """Whatever of ours runs from files to packed targets, latents and contexts is in CLIP_CODE or PROMPT_CODE."""
    operator = make_operator(filled.data, 32, 64)
    encoder = Wan.in_folder(tiny_wan).load_encoder(("text_encoder", "vae"), torch.float32, "cpu")
    operator.scene("ball")
    operator.stride("ball")

    def make() -> None:
        read, packer = read_overlapping(operator, "ball", [0, 2]), Packer()
        for targets in read.targets:
            assemble(packer.add(targets), packer.pieces)
        for windows in (read.starts, read.starts * 9):  # as many as share work
            list(encoder.windows(read.frames, windows, operator.num_frames))
        reduce_item({"video": operator(("ball", 1)), "position": 0, "window": 1, "prompt": ""})

    elsewhere = {
        ("model/weights.py", "quiet"),
        ("clips/batch.py", "reduce_item"),
        ("files/atomic.py", "expect_file"),
        ("processes/ranks.py", "local_world_size"),
    }  # nothing of it stays
    # Of the scene's layout, and of what makes targets, an entry names the code by itself.
    layout = {"data/layouts/isaac_sim.py": (), "readouts/motion.py": ("Motion",), "readouts/depth.py": ("Depth",)}
    assert_known(called(make) - elsewhere, cache.CLIP_CODE | layout)
    assert_known(called(lambda: encoder.prompt("A ball.")) - elsewhere, cache.PROMPT_CODE)


def assert_known(seen: set[tuple[str, str]], code: dict[str, tuple[str, ...]]) -> None:
    assert seen
    for file, name in seen:
        assert file in code, f"{file} ({name}) makes what is cached: name it in cache/cached.py"
        if sys.version_info >= (3, 11) and code[file]:
            assert name in code[file], f"{name} of {file} makes what is cached: name it in cache/cached.py"
