"""Filling the cache: jobs that are killed, that meet or divide the work, a disk that is full, scenes that change."""

import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from motion_depth.cache import encode as encoding
from motion_depth.cache.cached import CachedDataset
from motion_depth.cache.encode import encode_missing
from motion_depth.clips.batch import Sample
from tests.support.cache_setup import CLIPS, CacheSetup, FakeEncoder

ALL = range(100)  # positions enough for every clip


# --- killed -----------------------------------------------------------------------------------------------------------


def test_an_interrupted_job_goes_on_where_it_was(setup):
    with pytest.raises(KeyboardInterrupt):
        setup.encode(FakeEncoder(stop_after=3))
    assert len(setup.missing().clips) == CLIPS - 3
    assert setup.encode().clips == CLIPS - 3
    assert not setup.missing()


def encode_and_die(setup: CacheSetup, call: str) -> None:
    """A job that is killed, as by the system, when it comes to some call for the fourth time."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    for scene in ("ball", "ramp"):
        setup.job().files(scene)  # what is known of their files is written before
    original, calls = getattr(os, call), []

    def deadly(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(os, call, deadly)
    setup.encode()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_job_killed_while_it_writes_leaves_whole_files(setup, call):
    job = multiprocessing.get_context("fork").Process(target=encode_and_die, args=(setup, call))
    job.start()
    job.join()
    assert job.exitcode == -signal.SIGKILL
    (draft,) = setup.files(".*.safetensors")
    assert len(setup.files("[!.]*.safetensors")) == 3  # two prompts and a clip
    assert len(setup.missing().clips) == CLIPS - 1
    assert setup.encode().clips == CLIPS - 1
    assert not setup.missing()
    assert draft.exists()  # it could be another job's
    long_ago = time.time() - encoding.ABANDONED_AFTER - 1
    os.utime(draft, (long_ago, long_ago))
    setup.encode()
    assert not draft.exists()


def age(path) -> None:
    long_ago = time.time() - encoding.ABANDONED_AFTER - 1
    os.utime(path, (long_ago, long_ago))


def abandoned_draft(setup: CacheSetup):
    """Of an entry, old; and the bytes that it begins with."""
    setup.encode(FakeEncoder())
    entry = setup.files()[0]
    draft = entry.with_name(f".{entry.stem}.{'0' * 8}.safetensors")
    draft.write_bytes(entry.read_bytes()[:100])
    age(draft)
    return draft


def test_a_persons_files_in_the_cache_are_left_alone_whatever_their_names(setup):
    """Also one that looks like ours in every letter, and one that begins like ours."""
    draft = abandoned_draft(setup)
    names = ("photos/.x.safetensors", ".movie.01234567.mkv", "files/.mine.json", "files/.settings.01234567.json",
             ".thesis.safetensors")  # fmt: skip
    mine = [*(setup.folder / name for name in names), draft.with_name(draft.name.replace("000", "abc"))]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(draft.read_bytes() if path.name == ".thesis.safetensors" else b"mine")
        age(path)
    setup.encode()
    assert all(path.exists() for path in mine)
    assert not draft.exists()


def test_what_a_killed_job_noted_half_of_scenes_files_goes(setup):
    setup.encode(FakeEncoder())
    (noted, *_) = setup.files("files/*.json")
    draft = noted.with_name(f".{noted.stem[:80]}.01234567.json")
    draft.write_bytes(noted.read_bytes()[:50])
    setup.encode()
    assert draft.exists()
    age(draft)
    setup.encode()
    assert not draft.exists()


def test_what_a_running_job_writes_stays_however_old_it_is(setup):
    """The other job is stopped in the middle of a write for longer than any age that is looked at."""
    draft = abandoned_draft(setup)
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(flush=True)\n"
        "input()"
    )
    job = subprocess.Popen([sys.executable, "-c", program, draft], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    job.stdout.readline()
    setup.encode()
    assert draft.exists()
    job.communicate(b"\n")
    setup.encode()
    assert not draft.exists()


def test_a_draft_is_held_while_it_is_written(setup, monkeypatch):
    held = []

    lock = fcntl.lockf

    def lockf(*given):
        lock(*given)
        (draft,) = setup.files(".*.safetensors")
        program = "import fcntl, sys\nfcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        held.append(subprocess.run([sys.executable, "-c", program, draft], capture_output=True).returncode != 0)

    cache = setup.job()
    cache.files("ball")
    monkeypatch.setattr(fcntl, "lockf", lockf)
    cache.clip_entry("ball", 0).write({"latents": torch.zeros(2)})
    assert held == [True]


# --- several at once --------------------------------------------------------------------------------------------------


def test_jobs_that_fill_one_cache_at_once_leave_it_whole(setup):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)

    def job() -> None:
        torch.set_num_threads(1)
        cache, encoder = setup.job(), FakeEncoder()
        missing = cache.missing(ALL)
        start.wait()
        encode_missing(cache, missing, encoder, progress=False)

    jobs = [context.Process(target=job) for _ in range(3)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    assert [each.exitcode for each in jobs] == [0, 0, 0]
    assert not setup.missing()
    assert len(setup.files()) == CLIPS + 2
    assert (
        len([path for path in setup.files("*") if path.is_file()]) == CLIPS + 2 + 2
    )  # and what is known of two scenes
    assert all(isinstance(CachedDataset(setup.job())[position], Sample) for position in range(CLIPS))


def test_what_another_job_has_encoded_meanwhile_is_kept(setup):
    cache = setup.job()
    missing = cache.missing(ALL)
    setup.encode()
    encoder = FakeEncoder()
    encode_missing(cache, missing, encoder, progress=False)
    assert (encoder.clips, encoder.prompts) == (0, 0)


def test_jobs_begin_at_different_places():
    clips = list(range(1000))
    orders = [encoding._rotated(clips) for _ in range(5)]
    assert all(sorted(order) == clips for order in orders)
    assert len({order[0] for order in orders}) > 1
    assert encoding._rotated([]) == []


@pytest.mark.parametrize("processes", [3, 10])
def test_processes_divide_the_work(setup, processes):
    cache = setup.job()
    missing, encoders = cache.missing(ALL), [FakeEncoder() for _ in range(processes)]
    for rank, encoder in enumerate(encoders):
        encode_missing(cache, missing, encoder, rank, processes, progress=False)
    assert sum(encoder.clips for encoder in encoders) == CLIPS
    assert max(encoder.clips for encoder in encoders) <= -(-CLIPS // processes)
    assert sum(encoder.prompts for encoder in encoders) == 2
    assert not setup.missing()


def test_reading_in_workers_gives_the_same_files(setup):
    setup.encode()
    serial = {path.name: path.read_bytes() for path in setup.files()}
    shutil.rmtree(setup.folder)
    setup.encode(workers=2)
    assert {path.name: path.read_bytes() for path in setup.files()} == serial


def test_the_bar_counts_what_is_missing(setup, capfd):
    cache = setup.job()
    found = cache.missing(ALL)
    encode_missing(cache, replace(found, clips=[]), FakeEncoder(), progress=True)
    assert "2/2" in (text := capfd.readouterr().err)
    assert "prompt" in text
    encode_missing(cache, found, FakeEncoder(), progress=True)
    assert f"{CLIPS + 2}/{CLIPS + 2}" in (text := capfd.readouterr().err)
    assert "clip" in text
    encode_missing(cache, cache.missing(ALL), FakeEncoder(), progress=True)
    assert capfd.readouterr().err == ""  # nothing is missing
    shutil.rmtree(setup.folder)
    encode_missing(cache, cache.missing(ALL), FakeEncoder(), progress=False)
    assert capfd.readouterr().err == ""
