"""Trackers by name: what they write, what they say, and what they refuse."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from motion_depth.pictures.media import write_png, write_video
from motion_depth.training import trackers
from motion_depth.training.log import LOG_FILE, RunLog
from motion_depth.training.trackers import LOGGING_FOLDER, parse_trackers, show_pictures, start_trackers

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)


def run(output: Path, names: str, steps: range, run_id: str | None = None) -> str | None:
    """Logs a row at every step, and the pictures at the last one, as training does. Returns the run's id."""
    folder = ProjectConfiguration(logging_dir=str(output / LOGGING_FOLDER))
    accelerator = Accelerator(cpu=True, log_with=parse_trackers(names) or None, project_config=folder)
    run_id = start_trackers(accelerator, "project", {"seed": 0, "cache": None}, output, run_id, steps.start)
    log = RunLog(accelerator, output, steps.stop, steps.start)
    for step in range(steps.start + 1, steps.stop + 1):
        log.log(step, {"motion_loss": step / 8}, "train")
    write_png(output / "panel.png", FRAMES[0])
    write_video(output / "video.mp4", FRAMES, 8)
    show_pictures(accelerator, {"val/panel": output / "panel.png", "val/video": output / "video.mp4"}, steps.stop)
    log.close()
    accelerator.end_training()
    return run_id


def test_wandb_without_a_login_writes_rows_and_pictures_into_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_id = run(tmp_path, "wandb", range(2))
    assert f"wandb: offline, WANDB_MODE=offline; files go to {tmp_path / 'wandb'}\n" in capsys.readouterr().out
    time.sleep(1.1)  # the second folder's name has the second in it
    assert run(tmp_path, "wandb", range(2, 3), run_id) == run_id
    [first, second] = sorted(tmp_path.glob(f"wandb/offline-run-*-{run_id}/*.wandb"))
    for kind in (b"train/motion_loss", b"val/panel", b"val/video"):
        assert kind in first.read_bytes()
        assert kind in second.read_bytes()
    [panel, _] = sorted(tmp_path.glob("wandb/offline-run-*/files/media/images/val/panel_*.png"))
    assert panel.read_bytes() == (tmp_path / "panel.png").read_bytes()
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/videos/val/video_*.mp4"))) == 2


def test_tensorboard_has_scalars_the_picture_and_the_video_and_hides_what_comes_again(tmp_path):
    assert run(tmp_path, "tensorboard", range(4)) is None
    time.sleep(1.1)  # the second file's name has the second in it
    run(tmp_path, "tensorboard", range(2, 5))
    events = EventAccumulator(str(tmp_path / LOGGING_FOLDER / "project")).Reload()
    assert [(each.step, each.value) for each in events.Scalars("train/motion_loss")] == [
        (1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5), (5, 0.625)
    ]  # fmt: skip
    panel, video = events.Images("val/panel")[-1], events.Images("val/video")[-1]
    assert (panel.step, panel.width, panel.height) == (5, 48, 32)
    assert video.encoded_image_string.startswith(b"GIF89a")
    assert (video.width, video.height) == (48, 32)


def test_without_trackers_there_is_the_log_alone(tmp_path):
    assert run(tmp_path, "none", range(2), "abc") == "abc"  # an id is kept for a continuation that wants it again
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOG_FILE, "panel.png", "video.mp4"]
    assert [json.loads(line) for line in (tmp_path / LOG_FILE).open()] == [
        {"step": 1, "motion_loss": 0.125}, {"step": 2, "motion_loss": 0.25}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [("none", []), ("", []), ("wandb", ["wandb"]), ("none, tensorboard,wandb,wandb", ["tensorboard", "wandb"])],
)
def test_names_of_trackers(text, expected):
    assert parse_trackers(text) == expected


def test_unknown_names_and_missing_packages_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="--report_to wandb,board: board is no tracker; expected wandb, "):
        parse_trackers("wandb,board")
    monkeypatch.setattr(trackers.TRACKERS["tensorboard"], "package", "not_there")
    with pytest.raises(ValueError, match="the package not_there is not installed; run `pip install not_there`"):
        parse_trackers("tensorboard")


@pytest.fixture
def without_mode(tmp_path, monkeypatch):
    """Nothing says in which mode, and no login is known; the server is a closed port of this machine."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "no wandb login (run `wandb login` or set WANDB_API_KEY)"),
        ("short", "WANDB_API_KEY invalid: "),
        ("a" * 40, "Failed to authenticate with http://127.0.0.1:9: "),
    ],
)
def test_what_wandb_cannot_log_in_with_is_logged_offline(without_mode, tmp_path, monkeypatch, capsys, key, expected):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert run(tmp_path, "wandb", range(1))
    assert f"wandb: offline, {expected}" in capsys.readouterr().out
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


def test_only_a_run_that_wandb_knows_is_asked_for_its_address(without_mode, tmp_path, monkeypatch, capsys):
    class Run:
        id, url = "abc", "https://wandb.ai/abc"
        settings = wandb.Settings(mode="online")
        define_metric = log = lambda *_, **__: None

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    settings = trackers.TRACKERS["wandb"].arguments(tmp_path, "abc", 3)
    assert (settings["mode"], settings["id"], settings["resume"]) == ("online", "abc", "allow")
    tracker = type("Tracker", (), {"tracker": Run, "store_init_configuration": lambda *_: None})()
    assert trackers.TRACKERS["wandb"].begin(tracker, {}) == "abc"
    assert capsys.readouterr().out == "wandb: https://wandb.ai/abc\n"
