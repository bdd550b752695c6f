"""An optimizer update and its group of iterations: what is saved between two of them, and what goes on from there."""

import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

import train_wan22_ti2v_motion_depth as training
from motion_depth.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from motion_depth.training.loader import rank_positions
from motion_depth.training.optimizer import STATE_FILE
from motion_depth.training.run import is_due
from tests.support.inprocess import must_train, refused, two_processes
from tests.support.run_inputs import plain_flags
from tests.support.runs import rows, weights

ACCUMULATION = 4


@pytest.fixture(scope="module")
def flags(tiny_wan, tmp_path_factory) -> list:
    return [
        *("--stage", 1, *plain_flags(tmp_path_factory.mktemp("updates"), tiny_wan)),
        *("--head_size", "small", "--lr_warmup_steps", 0, "--learning_rate", 1e-3),
    ]


@pytest.fixture(scope="module")
def short(flags, tmp_path_factory) -> Path:
    """Seven iterations, the last group of three; a save is due at 3, 6 and so on."""
    output = tmp_path_factory.mktemp("updates") / "short"
    must_train(*flags, "--gradient_accumulation_steps", ACCUMULATION, "--save_steps", 3, "--max_steps", 7,
                 "--output_path", output)  # fmt: skip
    return output


def folders(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob("step-*"))


def copied(folder: Path, target: Path, **tensors: torch.Tensor) -> None:
    """A checkpoint folder with other tensors in its training state."""
    found = read_checkpoint(folder)
    files = {path.name: found.tensors(path.name) for path in folder.glob("*.safetensors")}
    files[STATE_FILE] |= tensors
    write_checkpoint(target, files, found.config)


def test_a_checkpoint_that_is_due_within_an_update_is_written_at_its_end(short):
    assert folders(short) == ["step-4", "step-7"]
    assert [row["step"] for row in rows(short)] == [4, 7]
    for name in folders(short):
        found = read_checkpoint(short / name)
        assert found.config["training"]["clips"] == found.config["training"]["step"] == int(name.split("-")[1])
        assert {tensor.split("/")[0] for tensor in found.tensors(STATE_FILE)} == {"optimizer"}


def test_what_is_due():
    assert [step for step in range(8, 25, 8) if is_due(10, step - 8, step)] == [16, 24]
    assert [step for step in range(8, 25, 8) if is_due(5, step - 8, step)] == [8, 16, 24]
    assert not any(is_due(0, step - 8, step) for step in range(8, 25, 8))


def test_each_update_is_the_mean_over_the_iterations_that_are_in_it(short, flags, tmp_path, monkeypatch):
    """Also in a run that goes on behind a last group that was short."""
    divisors, losses = [], []
    real = training.step_losses
    monkeypatch.setattr(training, "step_losses", lambda *a: losses.append(real(*a)) or losses[-1])
    backward = Accelerator.backward

    def recording(self, loss):
        divisors.append(round(float((losses[-1]["loss"].mean() / loss).detach()), 3))
        backward(self, loss)

    monkeypatch.setattr(Accelerator, "backward", recording)
    copied(short / "step-7", tmp_path / "out/step-7")
    must_train(*flags, "--gradient_accumulation_steps", ACCUMULATION, "--save_steps", 0, "--max_steps", 12,
                 "--output_path", tmp_path / "out", "--resume", "auto")  # fmt: skip
    assert divisors == [4, 4, 4, 4, 1]
    assert [row["step"] for row in rows(tmp_path / "out")] == [11, 12]


def test_gradients_from_the_middle_of_an_update_are_refused_with_what_to_do(short, flags, tmp_path):
    """Versions before wrote such folders; theirs from between two updates look as those of today."""
    copied(short / "step-4", tmp_path / "out/step-4", **{"gradient/0/heads.motion.decoder.out.bias": torch.zeros(2)})
    said = refused(*flags, "--gradient_accumulation_steps", ACCUMULATION, "--output_path", tmp_path / "out",
                 "--resume", "auto", unchanged=tmp_path)  # fmt: skip
    assert "step-4: was saved in the middle of an update" in said
    assert "a multiple of --gradient_accumulation_steps" in said


@pytest.mark.parametrize(
    ("processes", "changes", "fix"),
    [
        (2, [], "use --gradient_accumulation_steps 2"),
        (1, ["--batch_size", 2], "use --gradient_accumulation_steps 2"),
        (3, [], "use another number of processes"),
    ],
)
def test_an_update_of_another_size_is_refused_with_the_setting_that_keeps_it(
    short, flags, tmp_path, monkeypatch, processes, changes, fix
):
    monkeypatch.setattr("motion_depth.training.resuming.world_size", lambda: processes)
    copied(short / "step-4", tmp_path / "out/step-4")
    said = refused(*flags, "--gradient_accumulation_steps", ACCUMULATION, *changes, "--output_path", tmp_path / "out",
                 "--resume", "auto")  # fmt: skip
    assert "is made from 4 clips (1 processes x --batch_size 1 x --gradient_accumulation_steps 4)" in said
    assert fix in said


@pytest.mark.parametrize(("processes", "batch"), [(1, 1), (2, 1), (1, 3), (4, 2)])
def test_processes_share_the_sequence_from_where_it_was_left(processes, batch):
    wanted = range(24, 24 + 5 * processes * batch)
    shares = [rank_positions(wanted, rank, processes, batch) for rank in range(processes)]
    assert [len(share) for share in shares] == [5] * processes
    together = [position for iteration in zip(*shares, strict=True) for part in iteration for position in part]
    assert together == list(wanted)


def test_a_run_goes_on_with_another_number_of_processes(flags, tmp_path):
    """Two processes, then one: the same clips in the same updates as one process throughout, to rounding."""
    one = [*flags, "--gradient_accumulation_steps", 2, "--save_steps", 0, "--output_path"]
    must_train(*one, tmp_path / "one", "--max_steps", 8)
    two = [*flags, "--gradient_accumulation_steps", 1, "--save_steps", 1, "--output_path", tmp_path / "two"]
    done = two_processes(*two, "--max_steps", 2, folder=tmp_path)
    assert done.code == 0, done.err[-3000:]
    seen = read_checkpoint(tmp_path / "two/step-2").config["training"]
    assert (seen["processes"], seen["clips"]) == (2, 4)
    (tmp_path / "two/final").rename(tmp_path / "final")
    must_train(*one, tmp_path / "two", "--resume", "auto", "--max_steps", 6)
    assert [row["step"] for row in rows(tmp_path / "two")] == [1, 2, 4, 6]
    ours, theirs = ([row["loss"] for row in rows(tmp_path / name)] for name in ("two", "one"))
    assert ours == pytest.approx(theirs, rel=1e-4)
    before = weights(tmp_path / "final")
    found, wanted = weights(tmp_path / "two/final"), weights(tmp_path / "one/final")
    apart = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    moved = sum(float((wanted[name] - before[name]).square().sum()) for name in wanted)
    assert math.sqrt(apart / moved) < 0.01


def test_a_finished_run_that_is_longer_on_fewer_processes_ends_with_its_epochs(flags, tmp_path):
    """Iterations are counted on; what is left of the epochs is what has not been seen."""
    epoch = ["--dataset_repeat", 4, "--num_epochs", 1]
    wide = [*flags, *epoch, "--batch_size", 2, "--gradient_accumulation_steps", 1, "--save_steps", 1]
    must_train(*wide, "--output_path", tmp_path / "out", "--max_steps", 2)
    narrow = [*flags, *epoch, "--batch_size", 1, "--gradient_accumulation_steps", 2, "--save_steps", 0]
    done = must_train(*narrow, "--output_path", tmp_path / "out", "--resume", "auto")
    assert "run: iterations 2 to 6 of 1 clips" in done.out
    assert read_checkpoint(tmp_path / "out/final").config["training"]["clips"] == 8
