"""Files are written whole, where links lead, and only files are read: nothing waits for a pipe. Lists of scenes."""

import json
import math
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motion_depth.data.arrays import npy_header, picture_header, read_npy
from motion_depth.data.arrays import read_picture as read_rgb
from motion_depth.doctor.quick import quick_check
from motion_depth.doctor.record import record_path, recorded_check
from motion_depth.doctor.rows import check_rows
from motion_depth.files.atomic import complete_file, expect_file, file_size, finite, write_json, write_whole
from motion_depth.files.tables import read_csv, read_metadata
from motion_depth.generation.inputs import csv_jobs
from motion_depth.pictures.media import read_picture, read_video
from motion_depth.training.log import _keep_rows_until
from tests.support.scene_files import plain_scene

# --- writing ----------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_link_stays_a_link_and_its_target_gets_the_content(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "there/real.csv").write_text("old")
    (tmp_path / "here/one.csv").symlink_to("../there/real.csv")
    (tmp_path / "here/two.csv").symlink_to("one.csv")
    (tmp_path / "here/new.csv").symlink_to("../there/none_yet.csv")
    write_whole(tmp_path / "here/two.csv", "new")
    write_whole(tmp_path / "here/new.csv", "first")
    assert (tmp_path / "there/real.csv").read_text() == "new"
    assert (tmp_path / "there/none_yet.csv").read_text() == "first"
    assert all(path.is_symlink() for path in (tmp_path / "here").iterdir())
    assert names(tmp_path / "there") == ["none_yet.csv", "real.csv"]


def test_the_log_of_a_run_that_goes_on_stays_a_link(tmp_path):
    (tmp_path / "real.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    (tmp_path / "log.jsonl").symlink_to("real.jsonl")
    (tmp_path / "log.partial").write_text("mine")
    _keep_rows_until(tmp_path / "log.jsonl", 2)
    assert (tmp_path / "log.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
    assert (tmp_path / "log.undone.jsonl").read_text() == '{"step": 3}\n{"st\n'
    assert names(tmp_path) == ["log.jsonl", "log.partial", "log.undone.jsonl", "real.jsonl"]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_keeps_its_mode_and_a_new_one_gets_the_usual(tmp_path, mode):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "old.txt").chmod(mode)
    (tmp_path / "usual.txt").write_text("")
    for name in ("old.txt", "new.txt"):
        write_whole(tmp_path / name, "new")
    assert stat.S_IMODE((tmp_path / "old.txt").stat().st_mode) == mode
    assert (tmp_path / "new.txt").stat().st_mode == (tmp_path / "usual.txt").stat().st_mode


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")

    def fail(path: Path) -> None:
        with complete_file(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    for name in ("real.txt", "link.txt"):
        with pytest.raises(KeyboardInterrupt):
            fail(tmp_path / name)
    assert (tmp_path / "real.txt").read_text() == "old"
    assert names(tmp_path) == ["link.txt", "real.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("old")
    (tmp_path / "mine.txt").chmod(0o444)
    with pytest.raises(PermissionError, match="is not writable"):
        write_whole(tmp_path / "mine.txt", "new")
    assert (tmp_path / "mine.txt").read_text() == "old"


def test_json_is_json_whatever_the_numbers(tmp_path):
    value = {"a": [math.nan, 1.5, (math.inf, -math.inf)], "b": {"c": float("nan"), "d": None, "e": "NaN", "f": 3}}
    write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert read == finite(value) == {"a": [None, 1.5, [None, None]], "b": {"c": None, "d": None, "e": "NaN", "f": 3}}


# --- what is no file --------------------------------------------------------------------------------------------------


def bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address is short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a named pipe, expected a file"),
    "link to a pipe": (link_to_pipe, "it is a named pipe, expected a file"),
    "socket": (bind, "it is a socket, expected a file"),
    "device": (lambda path: path.symlink_to("/dev/null"), "it is a device, expected a file"),
    "folder": (Path.mkdir, "it is a folder, expected a file"),
    "link to nothing": (lambda path: path.symlink_to("gone"), "it is a link to gone, which is not there, expected a"),
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "picture": ("step_0003.png", read_rgb),
    "picture's size": ("step_0003.png", picture_header),
    "array": ("0003.npy", read_npy),
    "array's header": ("0003.npy", npy_header),
    "first frame": ("first.png", read_picture),
    "video": ("video.mp4", read_video),
    "list of scenes": ("my.csv", read_metadata),
    "any list": ("my.csv", read_csv),
    "checked list": ("my.csv", check_rows),
    "list of jobs": ("my.csv", lambda path: csv_jobs(path, None, (64, 96), False)),
}


@pytest.fixture
def in_time() -> Iterator[None]:
    """A test that waits is a test that failed."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, kind, reader):
    name, read = READERS[reader]
    make, message = NO_FILES[kind]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=f"{tmp_path / name}: .*{message}") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, kind):
    path = tmp_path / "out.txt"
    NO_FILES[kind][0](path)
    before = path.lstat()
    if kind == "link to nothing":  # which may be made
        write_whole(path, "new")
        assert (tmp_path / "gone").read_text() == "new"
    else:
        with pytest.raises((OSError, ValueError), match="expected a file"):
            write_whole(path, "new")
    assert path.lstat().st_ino == before.st_ino
    assert file_size(path) == (3 if kind == "link to nothing" else 0)


def test_a_link_in_a_circle_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for use in (expect_file, lambda path: write_whole(path, "")):
        with pytest.raises(OSError, match="symbolic links"):
            use(tmp_path / "a")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.usefixtures("in_time")
def test_a_pipe_beside_the_csv_is_no_record(tmp_path):
    os.mkfifo(record_path(tmp_path / "my.csv"))
    assert recorded_check(tmp_path / "my.csv", tmp_path, ["a"]) is None


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["rgb/step_{:04d}.png", "motion_vectors/motion_vectors_{:04d}.npy"])
@pytest.mark.parametrize("frame", [0, 5, 11])
def test_the_check_before_training_names_it(tmp_path, kind, name, frame):
    scene = plain_scene(tmp_path / "a")
    path = scene / name.format(frame)
    path.unlink()
    NO_FILES[kind][0](path)
    found = [finding for finding in quick_check(tmp_path, ["a"], num_frames=5) if finding.severity == "error"]
    if frame == 0 and path.suffix == ".npy":  # the first frame's motion may be anything
        assert not found
    else:
        assert [str(path) in finding.message for finding in found] == [True]


# --- lists ------------------------------------------------------------------------------------------------------------


def test_rows_keep_their_text_and_extra_columns(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text('\ufeffvideo, prompt ,id\n ramp ,"A ball, rolling.",007\n\nball/env_0,"Zwei\nBälle.",\n', "utf-8")
    assert read_metadata(path) == [
        {"video": "ramp", "prompt": "A ball, rolling.", "id": "007"},
        {"video": "ball/env_0", "prompt": "Zwei\nBälle.", "id": ""},
    ]


@pytest.mark.parametrize(
    ("content", "code", "row", "says"),
    [
        (b"", "csv_empty", None, "found an empty file, expected video, prompt and, if you like, others, each once"),
        (b"\n\n", "csv_empty", None, "found an empty file"),
        (b"video,text\nramp,a\n", "csv_columns", None, "found the columns video, text, expected video, prompt"),
        (b"video;prompt\nramp;a\n", "csv_columns", None, "found the columns video;prompt, expected"),
        (b"video,prompt, prompt\nramp,a,b\n", "csv_columns", None, "found the columns video, prompt, prompt, expected"),
        (b"video,prompt\n", "csv_empty", None, "found no row below the header, expected one for each scene"),
        (b"video,prompt\nramp,a\nramp,A, b\n", "csv_fields", 2, "found 3 fields, expected 2; a prompt that contains"),
        (b"video,prompt\nramp\n", "csv_fields", 1, "found 1 fields, expected 2"),
        (b"video,prompt\nramp,a\nramp,  \n", "prompt_empty", 2, "found an empty prompt"),
        (b"video,prompt\n,a\n", "video_empty", 1, "found an empty video"),
        (b"video,prompt\nramp,caf\xe9\n", "csv_not_utf8", 1, "found text that is not UTF-8"),
        (b'video,prompt\nramp,"a\n', "csv_broken", None, "not readable, expected a CSV"),
    ],
)
def test_a_wrong_list_is_named_with_its_row_by_training_and_by_the_check(tmp_path, content, code, row, says):
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}{f' row {row}' if row else ''}: {says}")):
        read_metadata(path)
    (found,) = check_rows(path)[1]
    assert (found.severity, found.code, found.row) == ("error", code, row)
    assert found.message.startswith(f"my.csv: {says}")


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"my\.csv: not readable, expected a CSV \(No such file"):
        read_metadata(tmp_path / "my.csv")
