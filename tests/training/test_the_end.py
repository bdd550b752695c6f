"""How a run ends, and what a finished one does when it is started again."""

import shutil
from pathlib import Path

import pytest

from motion_depth.processes.exits import NOT_FINITE
from tests.support.inprocess import at_iteration, must_train, nan, refused, snapshot, train
from tests.support.run_inputs import later_is_better, validated_flags
from tests.support.runs import step_of


@pytest.fixture(scope="module")
def flags(tiny_wan, tmp_path_factory) -> list:
    return validated_flags(tmp_path_factory.mktemp("output"), tiny_wan)


@pytest.fixture(autouse=True)
def better(monkeypatch):
    later_is_better(monkeypatch)


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory) -> tuple[list, Path]:
    """Three iterations, a step folder at two."""
    given = [*flags, "--save_steps", 2, "--max_steps", 3]
    output = tmp_path_factory.mktemp("output") / "finished"
    must_train(*given, "--output_path", output)
    return given, output


@pytest.mark.parametrize("changes", [[], ["--save_steps", 1], ["--num_epochs", 1, "--dataset_repeat", 100]])
def test_a_finished_run_that_is_started_again_writes_nothing(finished, changes):
    given, output = finished
    before = snapshot(output)
    done = must_train(*given, "--output_path", output, "--resume", "auto", *changes)
    assert f"finished before: {output / 'final'} is the model of all 3 iterations; nothing was written" in done.out
    assert snapshot(output) == before


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_iterations_than_there_are_do_not_replace_what_is_there(finished, steps):
    given, output = finished
    said = refused(*given, "--output_path", output, "--resume", "auto", "--max_steps", steps, unchanged=output)
    assert f"--max_steps {steps}: {output / 'final'} has 3 iterations behind it already; ask for 3 or more" in said


def test_what_a_stopped_run_has_is_not_labelled_anew(finished, tmp_path):
    given, output = finished
    shutil.copytree(output / "step-2", tmp_path / "out/step-2")
    assert "step-2 has 2 iterations behind it already" in refused(
        *given, "--output_path", tmp_path / "out", "--resume", "auto", "--max_steps", 1
    )
    must_train(*given, "--output_path", tmp_path / "out", "--resume", "auto", "--max_steps", 2)
    assert step_of(tmp_path / "out/final") == 2
    must_train(*given, "--output_path", tmp_path / "out", "--resume", "auto")
    assert step_of(tmp_path / "out/final") == 3


def test_a_finished_run_without_step_folders(finished, tmp_path):
    given, output = finished
    shutil.copytree(output / "final", tmp_path / "out/final")
    must_train(*given, "--output_path", tmp_path / "out", "--resume", "auto")
    assert "holds a finished run, final/, and no step folder to go on from" in refused(
        *given, "--output_path", tmp_path / "out", "--resume", "auto", "--max_steps", 4
    )


def test_a_run_that_has_learned_nothing_ends_with_3_and_without_final(flags, tmp_path, monkeypatch):
    at_iteration(monkeypatch, 1, nan, onwards=True)
    given = [*flags, "--output_path", tmp_path / "out", "--max_steps", 3, "--save_steps", 3, "--max_bad_steps", 0]
    for changes in [], ["--resume", "auto"]:
        done = train(*given, *changes)
        assert done.code == NOT_FINITE
        assert "all 3 updates of the run had inf or NaN in them and were skipped: nothing was learned" in done.err
        assert "done" not in done.out
        assert not (tmp_path / "out/final").exists()
    assert step_of(tmp_path / "out/step-3") == 3


@pytest.mark.parametrize("split", [False, True])
def test_a_run_that_has_learned_something_ends_well_and_says_what_it_skipped(flags, tmp_path, monkeypatch, split):
    """Also if all updates of its last start were skipped."""
    given = [*flags, "--output_path", tmp_path / "out", "--save_steps", 1, "--max_bad_steps", 0, "--resume", "auto"]
    if split:
        must_train(*given, "--max_steps", 1)
    at_iteration(monkeypatch, 1 if split else 2, nan, onwards=True)
    done = must_train(*given, "--max_steps", 3)
    assert "done: 3 iterations, 2 updates skipped; heads in " in done.out
    assert step_of(tmp_path / "out/final") == 3
