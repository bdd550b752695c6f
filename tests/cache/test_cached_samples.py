"""Samples and batches that come out of the cache."""

import pytest
import torch
from torch.utils.data import DataLoader

from motion_depth.cache.cached import CachedDataset, ClipCache
from motion_depth.cache.encode import encode_missing
from motion_depth.cache.entries import read_header
from motion_depth.clips import batch
from motion_depth.clips.batch import reduce_item
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.clips.noise import NoiseMixture
from motion_depth.files.digests import weights_digest
from motion_depth.model.wan import Wan
from motion_depth.readouts.statistics import measure
from motion_depth.training.loader import BatchLoader
from tests.support.cache_setup import FakeEncoder, same_targets
from tests.support.scene_files import make_operator


def test_cached_samples_follow_the_order_of_the_dataset_in_workers_too(filled):
    filled.order.update(seed=3, repeat=5, reduce=reduce_item)
    job = filled.job()
    samples = DataLoader(CachedDataset(job), batch_sampler=[range(8), range(30, 34)], num_workers=2, collate_fn=list)
    found = [sample for several in samples for sample in several]
    assert [sample.position for sample in found] == [*range(8), *range(30, 34)]
    for sample in found:
        direct = job.dataset[sample.position]
        latents, first = FakeEncoder().frames(direct.frames[None])
        assert (sample.scene, sample.window, sample.prompt) == (direct.scene, direct.window, direct.prompt)
        assert sample.frames is None
        assert torch.equal(sample.latents, latents[0])
        assert torch.equal(sample.first, first[0])
        assert torch.equal(sample.context, FakeEncoder().prompt(direct.prompt))
        assert same_targets(sample.targets, direct.targets)
    assert len(CachedDataset(job)) == len(job.dataset) == 10


def test_statistics_from_the_cache_are_those_from_the_files(filled):
    job = filled.job()
    from_files = measure(batch.pack_targets(job.operator(scene)) for scene in ("ball", "ramp"))
    assert not job.missing(range(100))
    for path in filled.data.rglob("*.png"):
        path.write_bytes(b"gone")  # so that the targets can only come from the cache
    from_cache = measure(job.targets(scene) for scene in ("ball", "ramp"))
    assert from_cache.to_json() == from_files.to_json()
    assert torch.equal(from_cache.maps["mean_depth"], from_files.maps["mean_depth"])


def test_targets_that_are_not_encoded_come_from_the_files(template, tmp_path):
    job = template.copy(tmp_path / "copy").empty().job()
    assert same_targets(job.targets("ramp", 2), batch.pack_targets(job.operator(("ramp", 2))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_from_the_cache_are_those_of_encoding_at_every_step(tmp_path, demo_scenes, demo_csv, tiny_wan, dtype):
    operator = make_operator(demo_scenes, 96, 96, num_frames=9)
    dataset = MotionDepthDataset(demo_scenes, demo_csv, operator, reduce=reduce_item)
    backbone = Wan.in_folder(tiny_wan)
    encoder = backbone.load_encoder(("text_encoder", "vae"), dtype, "cpu")
    job, positions = ClipCache(tmp_path, dataset, backbone.identity(), dtype), [range(2), range(2, 4)]
    encode_missing(job, job.missing(range(4)), encoder, progress=False)
    settings = (NoiseMixture.parse("1,1,1"), 0, 0, torch.device("cpu"), dtype)
    direct = BatchLoader(dataset, positions, encoder, *settings)
    cached = BatchLoader(CachedDataset(job), positions, None, *settings)
    for one, other in zip(direct, cached, strict=True):
        for name in ("latents", "first", "context", "noise", "sigma"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert same_targets(one.targets, other.targets)
        assert one.positions == other.positions


def test_the_header_says_what_the_entry_was_made_of(template):
    header = read_header(template.files("clips/ball/window-0002-*")[0])
    assert header["subject"] == {"scene": "ball", "window": 2}
    assert header["made_of"]["settings"]["first_frame"] == 2
    assert header["made_of"]["weights"]["vae"] == [weights_digest(template.model / "vae")]
    assert header["made_of"]["versions"]["diffsynth"]
