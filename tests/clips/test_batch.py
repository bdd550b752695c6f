"""From samples to a batch: types, frames that are taken, and memory that a GPU can copy from."""

import pytest
import torch

from motion_depth.clips.batch import Sample, make_batch
from motion_depth.clips.noise import NoiseMixture
from tests.support.quantities import motion_and_depth

MIXTURE = NoiseMixture.parse("1,1,1")


def sample(position: int) -> Sample:
    generator = torch.Generator().manual_seed(position)
    motion, depth = torch.randn(5, 2, 32, 32, generator=generator), torch.rand(5, 32, 32, generator=generator)
    valid = depth > 0.1
    return Sample(
        position, "scene", position, "A ball.", motion_and_depth(motion.half(), valid, depth.half(), valid),
        latents=torch.randn(48, 2, 2, 2, generator=generator), first=torch.randn(48, 1, 2, 2, generator=generator),
        context=torch.randn(7, 16, generator=generator),
    )  # fmt: skip


def test_a_batch_holds_its_samples_in_order_in_the_types_that_train():
    samples, contexts = [sample(4), sample(9)], torch.zeros(2, 512, 16)
    batch = make_batch(samples, contexts, MIXTURE, 0, torch.device("cpu"), torch.bfloat16)
    assert batch.positions == [4, 9]
    for row, each in enumerate(samples):
        assert torch.equal(batch.latents[row], each.latents.bfloat16())
        assert torch.equal(batch.first[row], each.first.bfloat16())
        for name, (values, valid) in batch.targets.items():
            assert torch.equal(values[row], each.targets[name].map.float())
            assert torch.equal(valid[row], each.targets[name].valid)
            assert values.dtype == torch.float32
    assert batch.frames is None


def test_taken_frames_are_those_of_the_targets():
    samples = [sample(0), sample(1)]
    batch = make_batch(samples, torch.zeros(2, 512, 16), MIXTURE, 0, torch.device("cpu"), torch.float32, loss_frames=2)
    assert batch.frames.shape == (2, 2)
    for row, each in enumerate(samples):
        assert torch.equal(batch.targets["depth"].map[row], each.targets["depth"].map[batch.frames[row]].float())


def test_pinning_reaches_every_tensor_of_a_sample(monkeypatch):
    """Pinning itself needs a GPU, so what would be pinned is marked instead."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.data_ptr()) or self)
    original = sample(3)
    result = original.pin_memory()
    tensors = [original.latents, original.first, original.context, *original.targets.tensors()]
    assert sorted(pinned) == sorted(tensor.data_ptr() for tensor in tensors)
    assert (result.position, result.scene, result.frames) == (3, "scene", None)


@pytest.mark.parametrize("position", [0, 5])
def test_noise_depends_on_seed_and_position_only(position):
    one, two = (
        make_batch(samples, torch.zeros(len(samples), 512, 16), MIXTURE, 0, torch.device("cpu"), torch.float32)
        for samples in ([sample(position)], [sample(2), sample(position)])
    )
    assert torch.equal(one.noise[0], two.noise[1])
    assert one.sigma[0] == two.sigma[1]
