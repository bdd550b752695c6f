"""Weights by model id: one process downloads, the others wait, and nobody asks again. The hub is a slow fake."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from diffsynth.core.loader import config as library

from motion_depth.model.weights import DOWNLOADS, TOKENIZER_ID, WanFiles
from motion_depth.processes import machines
from motion_depth.tiny.model import CONFIG_FILE

IDS = "me/tiny:diffusion_pytorch_model*.safetensors,me/tiny:models_t5*.safetensors,me/tiny:Wan2.2_VAE.safetensors"
PATTERNS = 4  # with the tokenizer's
FORK = multiprocessing.get_context("fork")


class Hub:
    """Copies files slowly, the first half of each first, and notes who asked."""

    def __init__(self, source: Path, folder: Path, seconds: float = 0.2):
        self.source, self.folder, self.seconds = source, folder, seconds

    def download(self, model_id: str, local_dir: str, allow_file_pattern: str, **_) -> None:
        with (self.folder / "asked").open("a") as file:
            file.write(f"{os.getpid()} {allow_file_pattern}\n")
        for path in [*self.source.glob(allow_file_pattern), self.source / CONFIG_FILE]:
            target = Path(local_dir) / path.relative_to(self.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes()
            target.write_bytes(data[: len(data) // 2])
            time.sleep(self.seconds)
            target.write_bytes(data)

    def asked(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "asked").read_text().splitlines()]


@pytest.fixture
def hub(tiny_wan, tmp_path, monkeypatch) -> Hub:
    hub = Hub(tiny_wan, tmp_path)
    monkeypatch.setattr(library, "snapshot_download", hub.download)
    monkeypatch.setenv("DIFFSYNTH_MODEL_BASE_PATH", str(tmp_path / "models"))
    monkeypatch.delenv("DIFFSYNTH_DOWNLOAD_SOURCE", raising=False)
    monkeypatch.delenv("DIFFSYNTH_SKIP_DOWNLOAD", raising=False)
    return hub


def find() -> WanFiles:
    return WanFiles.find(None, None, IDS, None)


def start(count: int, results) -> list:
    def run(rank: int) -> None:
        os.environ["LOCAL_RANK"] = str(rank)
        try:
            results.put(find())
        except Exception as error:
            results.put(error)

    processes = [FORK.Process(target=run, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def test_one_process_downloads_and_the_others_find_everything(hub, capfd):
    results = FORK.Queue()
    processes = start(4, results)
    found = [results.get(timeout=60) for _ in processes]
    assert all(isinstance(each, WanFiles) for each in found), found
    assert all(each == found[0] for each in found)
    assert len({process for process, _ in hub.asked()}) == 1
    assert len(hub.asked()) == PATTERNS
    said = f"waiting for another process, which downloads to {hub.folder / 'models'}"
    assert capfd.readouterr().err.count(said) in (1, 2)
    assert found[0].tokenizer == hub.folder / "models" / TOKENIZER_ID[0] / TOKENIZER_ID[1].rstrip("/")
    find()
    assert len(hub.asked()) == PATTERNS  # nor does a later job ask


def test_whoever_waits_goes_on_when_the_one_that_downloads_is_killed(hub):
    hub.seconds = 1.0
    results = FORK.Queue()
    (first,) = start(1, results)
    while not (hub.folder / "asked").exists():
        time.sleep(0.05)
    hub.seconds = 0.0
    (second,) = start(1, results)
    time.sleep(0.5)
    assert len({process for process, _ in hub.asked()}) == 1  # the second one waits
    os.kill(first.pid, signal.SIGKILL)
    assert isinstance(results.get(timeout=30), WanFiles)
    second.join()
    assert len([process for process, _ in hub.asked() if process == str(second.pid)]) == PATTERNS


@pytest.mark.parametrize("damage", ["file gone", "file cut", "record gone", "record damaged"])
def test_the_hub_is_asked_for_what_is_not_whole(hub, damage):
    hub.seconds = 0.0
    found = find()
    asked = len(hub.asked())
    record = hub.folder / "models" / DOWNLOADS
    if damage == "file gone":
        found.vae[0].unlink()
    elif damage == "file cut":
        found.vae[0].write_bytes(found.vae[0].read_bytes()[:-1])
    elif damage == "record gone":
        record.unlink()
    else:
        record.write_text("[]")
    assert find() == found
    assert len(hub.asked()) == asked + (1 if "file" in damage else PATTERNS)


def test_a_download_that_fails_is_not_taken_for_done(hub, monkeypatch):
    hub.seconds = 0.0

    def fail(*_, **__):
        raise ConnectionError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(library, "snapshot_download", fail)
        with pytest.raises(ValueError, match=r"cannot download me/tiny:diffusion.*no route to host.*--model_base_path"):
            find()
    find()
    assert len(hub.asked()) == PATTERNS


def test_where_files_cannot_be_locked_nobody_waits(hub, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    hub.seconds = 0.0
    monkeypatch.setattr(machines.fcntl, "flock", refuse)
    assert find() == find()


def test_errors_inside_are_not_taken_for_those_of_locking(tmp_path):
    with pytest.raises(OSError, match="inside"), machines.one_at_a_time(tmp_path / "lock", ""):
        raise OSError("inside")
