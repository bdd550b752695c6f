"""What can go wrong while the cache is filled."""

import errno
import os
from types import SimpleNamespace

import pytest
import torch

from motion_depth.cache import encode as encoding
from motion_depth.cache.encode import encode_missing
from motion_depth.clips.batch import pack_targets
from tests.cache.test_encode import ALL
from tests.support.cache_setup import CLIPS, FakeEncoder, pack_alone, touch


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
def test_a_full_disk_is_one_clear_line(setup, monkeypatch, call, number):
    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(ValueError, match=rf"--cache_path {setup.folder}: no room, found .* GB free .*expected about "):
        setup.encode()
    monkeypatch.undo()
    assert not setup.files("*.safetensors")
    assert not setup.files(".*")
    assert setup.encode().clips == CLIPS


def test_too_small_a_disk_is_said_with_the_first_clip(setup, monkeypatch):
    monkeypatch.setattr(encoding.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    cache = setup.job()
    missing, processes = cache.missing([0]), 1000
    (clip,) = [cache.operator(clip) for clip in missing.clips]
    tensors = [
        *FakeEncoder().frames(clip.frames[None]),
        *pack_alone(pack_targets(clip)).values(),
        torch.zeros(3).long(),
    ]
    needed = processes * sum(tensor.nbytes for tensor in tensors)
    assert needed > 1_000_000
    with pytest.raises(ValueError, match=rf"found 0\.001 GB free .* expected about {needed / 1e9:.3f} GB; make room"):
        encode_missing(cache, missing, FakeEncoder(), processes - 1, processes, progress=False)
    assert not setup.files("clips/**/*.safetensors")


def test_a_folder_that_cannot_be_written_is_said(setup):
    setup.folder.mkdir()
    (setup.folder / "clips").write_text("in the way")
    assert "8 not readable (Not a directory)" in setup.missing().summary
    with pytest.raises(ValueError, match=rf"--cache_path {setup.folder}: cannot be written"):
        setup.encode()


def test_a_file_in_the_place_of_the_cache_is_said(setup):
    setup.folder.write_text("in the way")
    with pytest.raises(ValueError, match=rf"--cache_path {setup.folder}: found a file, expected a folder"):
        setup.job()


# --- clips that cannot be encoded -------------------------------------------------------------------------------------


def test_a_scene_that_changes_while_it_is_encoded_is_an_error(setup, monkeypatch):
    """After the start, or while a clip of it is read."""
    cache, path = setup.job(), setup.data / "ball/rgb/step_0005.png"
    said = rf"scene ball, windows 1 to 3: {path}: changed since the start"
    missing = cache.missing(ALL)
    cache.files("ball")
    touch(path)
    with pytest.raises(ValueError, match=said):
        encode_missing(cache, missing, FakeEncoder(), progress=False)
    again = setup.job()
    read = again.operator.scene("ball").read
    monkeypatch.setattr(again.operator.scene("ball"), "read", lambda *which: (read(*which), touch(path))[0])
    with pytest.raises(ValueError, match=said):
        encode_missing(again, again.missing(ALL), FakeEncoder(), progress=False)


def test_a_clip_that_cannot_be_read_is_an_error(setup):
    path = setup.data / "ramp/rgb/step_0005.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"scene ramp, windows 1 to 3: {path}: not readable"):
        setup.encode(workers=1)


def test_a_file_that_vanishes_is_an_error(setup):
    for _ in range(2):  # without entries of the scene, and with some
        cache, path = setup.job(), setup.data / "ramp/rgb/step_0005.png"
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(ValueError, match=rf"{path}: not readable \(No such file"):
            encode_missing(cache, cache.missing(ALL), FakeEncoder(), progress=False)
        path.write_bytes(data)
        setup.encode()


def test_an_encoder_of_another_precision_is_refused(setup):
    with pytest.raises(ValueError, match=r"encoder: found torch\.float32, expected the cache's torch\.bfloat16"):
        setup.encode(FakeEncoder(torch.float32))
    assert not setup.files()
