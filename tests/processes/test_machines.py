"""Several machines, each a few processes here: what they must share, what they must have alike, and who encodes."""

from pathlib import Path

import pytest
import torch

from motion_depth.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from motion_depth.files import digests as identity
from motion_depth.processes import machines
from motion_depth.processes.machines import Machine, require_alike, require_shared
from motion_depth.settings import Settings
from motion_depth.training import samples as source
from motion_depth.training.optimizer import STATE_FILE
from motion_depth.training.resuming import agree_on_start, find_start
from tests.support.cache_setup import CLIPS, CacheSetup, FakeEncoder, alter
from tests.support.processes import in_processes
from tests.support.settings import make_settings
from tests.support.small_checkpoint import small_checkpoint

PROCESSES = [2, 1]  # of each machine


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(machines, "SHARED_WAIT", 0.3)


def own(folder: Path, accelerator) -> Path:
    """A folder that only the processes of one machine see."""
    return folder / f"machine{accelerator.process_index // 2}"


def same_error(found: list) -> str:
    """What every process has raised."""
    assert all(isinstance(each, ValueError) for each in found), found
    assert len(set(map(str, found))) == 1
    return str(found[0])


def test_machines_are_told_apart():
    found = in_processes(Machine.find, [2, 1, 3])
    assert found == [Machine(0, 2, False)] * 2 + [Machine(2, 1, False)] + [Machine(3, 3, False)] * 3
    assert in_processes(Machine.find, [2]) == [Machine(0, 2, True)] * 2


def test_a_folder_that_all_see_is_shared_and_left_as_it_was(tmp_path):
    folder = tmp_path / "new" / "out"
    assert in_processes(lambda a: require_shared(a, "--output_path", folder, "why"), PROCESSES) == [None] * 3
    assert list(folder.iterdir()) == []


def test_a_folder_that_a_machine_does_not_see_is_an_error_everywhere(tmp_path):
    found = in_processes(lambda a: require_shared(a, "--output_path", own(tmp_path, a), "why"), PROCESSES)
    assert "(rank 2) does not see there what rank 0 writes; give a folder that all machines share, why" in str(found[2])
    assert all(str(each).startswith("--output_path ") for each in found)
    assert not list(tmp_path.rglob(".shared-*"))


def test_a_folder_that_cannot_be_written_is_an_error_everywhere(tmp_path):
    (tmp_path / "file").touch()
    found = in_processes(lambda a: require_shared(a, "--output_path", tmp_path / "file/out", "why"), PROCESSES)
    assert same_error(found) == f"--output_path {tmp_path / 'file/out'}: cannot be written (Not a directory)"


def test_one_machine_needs_no_file(tmp_path):
    assert in_processes(lambda a: require_shared(a, "--output_path", tmp_path / "out", "why"), [2]) == [None] * 2
    assert not (tmp_path / "out").exists()


def test_what_differs_on_a_machine_is_named_everywhere():
    def compare(accelerator):
        on_second = accelerator.process_index == 2
        require_alike(accelerator, {"--seed": 0, "--batch_size": 2 if on_second else 1})

    assert same_error(in_processes(compare, PROCESSES)).startswith("--batch_size: not the same on ")
    assert in_processes(lambda a: require_alike(a, {"--seed": 0}), PROCESSES) == [None] * 3


# --- resuming ---------------------------------------------------------------------------------------------------------


def settings(output: Path, **changes) -> Settings:
    given = {"stage": 2, "resume": "auto", "output_path": output, "save_steps": 2, "gradient_accumulation_steps": 1}
    return make_settings(**given | changes)


def save_step(output: Path, step: int) -> None:
    training = {"step": step, "clips": step * 3, "processes": 3}
    files = {STATE_FILE: {"a": torch.zeros(1)}}
    small_checkpoint(output / f"step-{step}", settings(output).plain(), training, files)


def decide(accelerator, args: Settings) -> tuple:
    start = find_start(args, accelerator.num_processes, 30, print) if accelerator.is_main_process else None
    start = agree_on_start(accelerator, args, start)
    assert start.total == 10
    return start.step, start.checkpoint and start.checkpoint.folder


def test_the_main_process_decides_where_all_go_on(tmp_path):
    assert in_processes(lambda a: decide(a, settings(tmp_path)), PROCESSES) == [(0, None)] * 3
    save_step(tmp_path, 2)
    save_step(tmp_path, 4)
    assert in_processes(lambda a: decide(a, settings(tmp_path)), PROCESSES) == [(4, tmp_path / "step-4")] * 3
    explicit = settings(tmp_path / "other", resume=str(tmp_path / "step-2"))
    assert in_processes(lambda a: decide(a, explicit), PROCESSES) == [(2, tmp_path / "step-2")] * 3


def test_all_know_that_a_run_is_finished_and_of_a_best_model(tmp_path):
    def decide_on(accelerator):
        start = find_start(settings(tmp_path), 3, 12, print) if accelerator.is_main_process else None
        start = agree_on_start(accelerator, settings(tmp_path), start)
        return start.finished[:15], start.total, start.best_score

    save_step(tmp_path, 2)
    config = read_checkpoint(tmp_path / "step-2").config
    config["training"]["best_score"] = 0.25
    write_checkpoint(tmp_path / "best", {}, config)
    assert in_processes(decide_on, PROCESSES) == [("", 4, 0.25)] * 3
    save_step(tmp_path, 4)
    (tmp_path / "step-4").rename(tmp_path / "final")
    assert in_processes(decide_on, PROCESSES) == [("finished before", 4, None)] * 3


@pytest.mark.parametrize("steps", [(), (2,)])
def test_an_output_folder_of_each_machine_is_refused_and_nobody_waits(tmp_path, steps):
    for step in steps:
        save_step(tmp_path / "machine0", step)
    found = in_processes(lambda a: decide(a, settings(own(tmp_path, a))), PROCESSES)
    assert all("give a folder that all machines share, a run that goes on reads its" in str(each) for each in found)


def test_other_settings_on_a_machine_are_refused_even_those_that_a_continuation_may_change(tmp_path):
    def job(accelerator, **changes):
        return decide(accelerator, settings(tmp_path, **(changes if accelerator.process_index == 2 else {})))

    assert same_error(in_processes(lambda a: job(a, save_steps=3), PROCESSES)).startswith("--save_steps: not the same")
    assert same_error(in_processes(lambda a: job(a, cache_path=tmp_path), PROCESSES)).startswith("--cache_path: not")


# --- caches -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def setup(tmp_path) -> CacheSetup:
    encoders.clear()
    return CacheSetup(tmp_path / "a")


encoders: list = []  # of the process that asks


class FakeBackbone:
    def load_encoder(self, parts, *_) -> FakeEncoder:
        encoders.append((parts, FakeEncoder()))
        return encoders[-1][1]


def fill(accelerator, setup: CacheSetup) -> tuple[int, int]:
    """Clips and prompts that this process encodes; afterwards it knows all clips without looking."""
    job = setup.job()
    source.fill_caches(accelerator, [(job, range(100))], FakeBackbone(), torch.bfloat16, 0)
    identity.stamp = None  # of a process that ends with this
    assert len(job.known) == CLIPS
    assert all(job.sample(position).latents is not None for position in range(CLIPS))
    return sum(each.clips for _, each in encoders), sum(each.prompts for _, each in encoders)


def test_machines_that_share_a_cache_divide_the_work(setup):
    clips, prompts = zip(*in_processes(lambda a: fill(a, setup), PROCESSES), strict=True)
    assert (sum(clips), prompts) == (CLIPS, (2, 0, 0))
    assert max(clips) <= 3


def test_machines_with_caches_of_their_own_fill_each(setup):
    def job(accelerator):
        setup.folder = own(setup.root / "caches", accelerator)
        return fill(accelerator, setup)

    assert in_processes(job, PROCESSES) == [(4, 2), (4, 0), (8, 2)]
    assert in_processes(job, PROCESSES) == [(0, 0)] * 3


def test_copies_on_another_machine_use_one_cache(setup, tmp_path):
    other = setup.copy(tmp_path / "b")
    other.folder = setup.folder
    clips, _ = zip(*in_processes(lambda a: fill(a, (setup, other)[a.process_index // 2]), PROCESSES), strict=True)
    assert sum(clips) == CLIPS


def test_a_scene_that_is_another_one_on_a_machine_is_an_error_everywhere(setup, tmp_path):
    other = setup.copy(tmp_path / "b")
    alter(other.data / "ramp/distance_to_camera/0005.npy")

    def job(accelerator):
        mine = (setup, other)[accelerator.process_index // 2]
        mine.folder = own(tmp_path / "caches", accelerator)
        return fill(accelerator, mine)

    said = same_error(in_processes(job, PROCESSES))
    assert said.startswith("--dataset_base_path: scene ramp has other files on one machine than on another")


def test_other_weights_or_another_csv_on_a_machine_are_an_error_everywhere(setup, tmp_path):
    other = setup.copy(tmp_path / "b")

    def job(accelerator):
        mine = (setup, other)[accelerator.process_index // 2]
        return source.agree_on_data(accelerator, mine.job().dataset, None, mine.files_of_model())

    first, *others = in_processes(job, PROCESSES)
    assert first["vae"]
    assert others == [first] * 2
    alter(other.model / "dit")
    assert same_error(in_processes(job, PROCESSES)).startswith("weights (dit): not the same on ")
    alter(other.model / "dit")
    other.csv.write_text(other.csv.read_text().replace("ball.", "cube."))
    assert same_error(in_processes(job, PROCESSES)).startswith("--dataset_metadata_path or its scenes' frames: not")
