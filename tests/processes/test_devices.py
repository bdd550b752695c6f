"""What a run computes on: GPUs that are counted but cannot be used, and processes that do not form one group."""

from types import SimpleNamespace

import pytest
import torch

from motion_depth.processes.devices import check_processes, choose_device, count_gpus
from tests.support.inprocess import refused
from tools.model_flags import read_run

FLAGS = ("--stage", 1, "--dataset_base_path", "no", "--dataset_metadata_path", "no.csv", "--output_path", "no")


@pytest.fixture
def too_old(monkeypatch) -> None:
    """Two GPUs whose driver is older than torch's CUDA."""

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nMore of it.")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)


def accelerator(processes: int, device: str) -> SimpleNamespace:
    return SimpleNamespace(num_processes=processes, device=torch.device(device))


def test_gpus_that_cannot_start_are_an_error_and_none_are_not(too_old, monkeypatch):
    with pytest.raises(ValueError, match=r"GPUs: found 2, but .* \(The NVIDIA driver .*\(found version 11040\)\); up"):
        count_gpus()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert count_gpus() == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert count_gpus() == 3


def test_training_refuses_them_before_anything_else(too_old):
    said = refused(*FLAGS)
    assert said.startswith("error: GPUs: found 2, but torch ")


def test_the_tools_do_not_take_the_cpu_in_their_place(too_old, monkeypatch):
    for name in (None, "cuda", "cuda:1"):
        with pytest.raises(ValueError, match="GPUs: found 2, but torch "):
            read_run(SimpleNamespace(device=name, checkpoint="no"))
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert (choose_device(None), choose_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(ValueError, match="--device cuda:2: found 2 CUDA devices"):
        choose_device("cuda:2")
    with pytest.raises(ValueError, match="--device quick: expected cuda"):
        choose_device("quick")


def test_processes_that_do_not_form_one_group_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_processes(accelerator(1, "cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(accelerator(2, "cpu"))
    with pytest.raises(ValueError, match="WORLD_SIZE=2 processes were started, but accelerate made groups of 1"):
        check_processes(accelerator(1, "cpu"))


def test_the_cpu_does_not_compute_where_there_are_gpus(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(accelerator(1, "cuda:0"))
    with pytest.raises(ValueError, match="would compute on the CPU, but there are 2 GPUs"):
        check_processes(accelerator(1, "cpu"))
