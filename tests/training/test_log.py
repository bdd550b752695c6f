"""What starting wandb says."""

from types import SimpleNamespace

import pytest

from motion_depth.training.log import start_tracking


class Run:
    """wandb's, which warns where it is asked for an address that it does not have."""

    id = "abc"

    def __init__(self, said: list[str]):
        self.said = said

    @property
    def url(self) -> str:
        self.said.append("WARNING URL not available")
        return "https://wandb.ai/abc"

    def define_metric(self, *_: str, **__: str) -> None:
        pass


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("offline", ["wandb: offline, WANDB_MODE=offline; files go to {}"]),
        ("online", ["WARNING URL not available", "wandb: https://wandb.ai/abc"]),
    ],
)
def test_only_a_run_that_is_online_is_asked_for_its_address(tmp_path, monkeypatch, mode, expected):
    said = []
    monkeypatch.setenv("WANDB_MODE", mode)
    accelerator = SimpleNamespace(
        print=said.append, init_trackers=lambda *_, **__: None, is_main_process=True,
        get_tracker=lambda *_, **__: Run(said),
    )  # fmt: skip
    assert start_tracking(accelerator, "project", {}, tmp_path, None) == "abc"
    assert said == [text.format(tmp_path / "wandb") for text in expected]
