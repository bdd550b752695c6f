"""A link in a checkpoint's place: what it leads to is the user's."""

import torch

from motion_depth.checkpoints.checkpoint import rotate, write_checkpoint
from tests.support.inprocess import snapshot


def test_what_a_linked_checkpoint_leads_to_stays(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    tensors = {"motion_head.safetensors": {"weight": torch.ones(1)}}
    write_checkpoint(archive, tensors, {})
    before = snapshot(archive)
    output.mkdir()
    for name in ("final", "step-1"):
        (output / name).symlink_to(archive)

    write_checkpoint(output / "final", tensors, {})
    write_checkpoint(output / "step-2", tensors, {})
    rotate(output, 1, 2)

    assert snapshot(archive) == before
    assert not (output / "final").is_symlink()
    assert {path.name for path in output.iterdir()} == {"final", "step-1", "step-2"}
