"""What lies in an output folder: of another run it is never written over, of the same run never made worse."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

import train_wan22_ti2v_motion_depth as training
from motion_depth.checkpoints import checkpoint
from motion_depth.checkpoints.checkpoint import read_checkpoint
from motion_depth.training.log import UNDONE_FILE
from motion_depth.training.ownership import LOCK_FILE
from motion_depth.training.resuming import RUN_FILE, find_start
from tests.support.inprocess import at_iteration, must_train, refused, snapshot, train
from tests.support.run_inputs import later_is_better, validated_flags
from tests.support.runs import rows, step_of, weights

fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def flags(tiny_wan, tmp_path_factory) -> list:
    return validated_flags(tmp_path_factory.mktemp("output"), tiny_wan)


@pytest.fixture(autouse=True)
def better(monkeypatch):
    later_is_better(monkeypatch)


def in_another_process(*given: object):
    """The training script in a process that is forked from this one, with what is patched here; its exit code."""

    def run() -> None:
        torch.set_num_threads(1)  # a forked process has none of its parent's threads
        os._exit(train(*given).code)

    process = fork.Process(target=run)
    process.start()
    return process


@pytest.fixture(scope="module")
def killed(flags, tmp_path_factory) -> Path:
    """A run that was killed in iteration 7: best/ of step 6, a log, no step folder."""
    output = tmp_path_factory.mktemp("output") / "killed"
    with pytest.MonkeyPatch.context() as patch:
        later_is_better(patch)
        at_iteration(patch, 7, lambda _: os.kill(os.getpid(), signal.SIGKILL), onwards=True)
        process = in_another_process(*flags, "--output_path", output)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {path.name for path in output.iterdir()} == {"best", "log.jsonl", "validation", RUN_FILE, LOCK_FILE}
    assert step_of(output / "best") == 6
    assert len(rows(output)) == 6 + 4
    return output


@pytest.fixture
def output(killed, tmp_path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "out"))


def without_lock(found: dict) -> dict:
    return {name: value for name, value in found.items() if not name.endswith(LOCK_FILE)}  # its holder touches it


# --- another run's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (["--resume", "none", "--seed", 5], "--seed was 0, is 5"),
        (["--resume", "auto", "--seed", 5], "--seed was 0, is 5"),
        (["--resume", "auto", "--learning_rate", 1e-3], "--learning_rate was 0.0001, is 0.001"),
        (["--gradient_accumulation_steps", 2], "an update was made from 1 clips, is from 2"),
    ],
)
def test_a_run_killed_before_its_first_checkpoint_is_not_written_over_by_another(flags, output, changes, difference):
    said = refused(*flags, "--output_path", output, *changes, unchanged=output.parent)
    assert f"--output_path {output}: holds best, log.jsonl, validation of another run" in said
    assert difference in said
    assert "choose another folder, or move them away" in said


def start(flags: list, output: Path, *changes: object):
    """As the script's main process would begin with these flags."""
    args = training.parse_settings([*map(str, flags), "--output_path", str(output), *map(str, changes)])
    return find_start(args, 1, 1000, print)


@pytest.mark.parametrize("name", ["best", "log.jsonl", "wandb", "validation"])
@pytest.mark.parametrize("resume", ["none", "auto"])
def test_each_result_alone_is_another_runs_too(flags, output, tmp_path, name, resume):
    """With the run's own word about whose they are, and without."""
    (output / "wandb/offline-run").mkdir(parents=True)
    for other in ("best", "log.jsonl", "wandb", "validation"):
        if other != name:
            (output / other).rename(tmp_path / other)
    with pytest.raises(ValueError, match=rf"holds {name} of another run .*--seed was 0, is 5"):
        start(flags, output, "--resume", resume, "--seed", 5)
    assert start(flags, output, "--resume", resume).step == 0
    (output / RUN_FILE).unlink()
    if name == "best":
        with pytest.raises(ValueError, match=r"holds best of another run .*--seed was 0, is 5"):
            start(flags, output, "--resume", resume, "--seed", 5)
        assert start(flags, output, "--resume", resume).best_score == 1 / 7
    else:
        with pytest.raises(ValueError, match=rf"holds {name} of another run \(nothing there says of which"):
            start(flags, output, "--resume", resume)


def test_what_is_no_result_does_not_hinder(flags, output, tmp_path):
    """What a run leaves that ends before it has one, and a user's own files."""
    empty = tmp_path / "empty"
    (empty / "wandb").mkdir(parents=True)
    (empty / "log.jsonl").touch()
    (empty / "notes.txt").write_text("mine")
    (empty / "bestiary").mkdir()
    shutil.copy(output / RUN_FILE, empty)
    assert start(flags, empty, "--seed", 5) == start(flags, tmp_path / "nothing", "--seed", 5)


@pytest.mark.parametrize("name", [RUN_FILE, "best", "final"])
@pytest.mark.parametrize("link", [False, True])
def test_what_only_has_the_name_of_ours_is_refused(flags, tmp_path, name, link):
    (tmp_path / name).symlink_to("nowhere") if link else (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"holds {name} of another run \(.*does not describe a run"):
        start(flags, tmp_path, "--resume", "auto")


def test_a_stage_2_that_begins_anew_from_other_heads_is_another_run(flags, output):
    about = json.loads((output / RUN_FILE).read_bytes())
    about["run"] |= {"stage": 2, "heads_checkpoint": "one/final"}
    (output / RUN_FILE).write_text(json.dumps(about))
    shutil.rmtree(output / "best")
    with pytest.raises(ValueError, match="--heads_checkpoint was one/final, is other/final"):
        start(flags, output, "--stage", 2, "--heads_checkpoint", "other/final")
    assert start(flags, output, "--stage", 2, "--heads_checkpoint", "one/final").step == 0


# --- the same run's ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", ["none", "auto"])
def test_the_same_command_goes_on_before_a_first_checkpoint(flags, output, resume):
    """From step 0; what was logged is set aside, and the better model stays until there is one better still."""
    before, best = rows(output), weights(output / "best")
    must_train(*flags, "--output_path", output, "--resume", resume, "--max_steps", 4)
    assert [row["step"] for row in rows(output)] == [0, 1, 2, 2, 3, 4, 4]
    assert [json.loads(line) for line in (output / UNDONE_FILE).read_text().splitlines()] == before
    assert step_of(output / "best") == 6
    assert all(torch.equal(value, best[name]) for name, value in weights(output / "best").items())
    assert step_of(output / "final") == 4
    assert not (output / LOCK_FILE).exists()


def test_a_run_that_goes_on_keeps_a_better_model_from_a_later_step(flags, tmp_path, monkeypatch):
    """Killed in iteration 8 with step-5 as the newest checkpoint and best/ of step 6."""
    given = [*flags, "--output_path", tmp_path / "out", "--save_steps", 5]
    with monkeypatch.context() as patch:
        at_iteration(patch, 8, lambda _: os.kill(os.getpid(), signal.SIGKILL), onwards=True)
        in_another_process(*given).join()
    assert step_of(tmp_path / "out/best") == 6
    monkeypatch.setattr(training.Validation, "run", lambda *a: 0.5)
    must_train(*given, "--resume", "auto")
    assert step_of(tmp_path / "out/best") == 6
    assert read_checkpoint(tmp_path / "out/final").config["training"]["best_score"] == 1 / 7
    undone = [json.loads(line)["step"] for line in (tmp_path / "out" / UNDONE_FILE).read_text().splitlines()]
    assert undone == [6, 6, 7]


# --- two jobs ---------------------------------------------------------------------------------------------------------


def test_a_second_job_is_refused_and_takes_nothing_away_from_the_first(flags, tmp_path, monkeypatch):
    """While the first one is in the middle of writing a checkpoint; the cache can be filled beside it."""
    output, writing, go_on = tmp_path / "out", fork.Event(), fork.Event()
    given = [*flags, "--output_path", output, "--cache_path", tmp_path / "cache", "--save_steps", 1, "--max_steps", 3]

    def wait() -> None:
        if os.getpid() != here and not writing.is_set() and list(output.glob(".step-2.*.partial")):
            writing.set()
            assert go_on.wait(300)

    here, real = os.getpid(), checkpoint.flush
    monkeypatch.setattr(checkpoint, "flush", lambda *a: (real(*a), wait()))
    first = in_another_process(*given)
    assert writing.wait(300)
    before = without_lock(snapshot(output))
    for changes, said in (
        ([], "already holds step-1"),
        (["--resume", "auto"], f"another run (process {first.pid} on {os.uname().nodename}, since "),
        (["--resume", "auto", "--save_steps", 2], f"another run (process {first.pid} on "),
        (["--resume", "auto", "--seed", 5], "--seed was 0, is 5"),
    ):
        assert said in refused(*given, *changes)
    must_train(*given, "--seed", 5, "--cache_only")
    assert without_lock(snapshot(output)) == before
    go_on.set()
    first.join()
    assert first.exitcode == 0
    assert {step_of(output / name) for name in ("step-1", "step-2", "step-3", "final")} == {1, 2, 3}
    assert not list(output.glob(".*"))


def test_a_second_job_on_a_folder_without_results_is_refused_with_who_holds_it(flags, tmp_path, monkeypatch):
    """Another seed, before the first job has written anything that says whose the folder is."""
    output, began, go_on = tmp_path / "out", fork.Event(), fork.Event()
    given = [*flags, "--output_path", output, "--max_steps", 1]
    here, real = os.getpid(), training.build_model

    def build_model(*args):
        if os.getpid() != here:
            began.set()
            assert go_on.wait(300)
        return real(*args)

    monkeypatch.setattr(training, "build_model", build_model)
    first = in_another_process(*given)
    assert began.wait(300)
    assert f"another run (process {first.pid} on {os.uname().nodename}, since " in refused(*given, "--seed", 5)
    go_on.set()
    first.join()
    assert first.exitcode == 0
    assert read_checkpoint(output / "final").config["run"]["seed"] == 0
