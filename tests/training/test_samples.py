"""Which scenes the statistics of a training set are measured on."""

from types import SimpleNamespace

import pytest

from motion_depth.training import samples as source


@pytest.mark.parametrize(
    ("scenes", "measured"), [(1, 1), (21, 21), (24, 24), (25, 24), (47, 24), (48, 24), (100, 24), (1000, 24)]
)
def test_statistics_are_measured_on_up_to_24_scenes_from_all_over_the_list(monkeypatch, scenes, measured):
    read: list[int] = []
    monkeypatch.setattr(source, "pack_targets", lambda clip: clip)
    monkeypatch.setattr(source, "measure", lambda clips: read.extend(clips))
    monkeypatch.setattr(source, "broadcast_object_list", lambda found: found)
    data = [{"video": number} for number in range(scenes)] * 2
    dataset = SimpleNamespace(data=data, operator=lambda scene: scene)
    source.measure_statistics(SimpleNamespace(is_main_process=True), dataset)
    steps = {after - before for before, after in zip(read, [*read[1:], scenes], strict=True)}
    assert len(read) == measured
    assert read[0] == 0
    assert max(steps) - min(steps) <= 1
