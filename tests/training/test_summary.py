"""What a run says of itself before it starts."""

import pytest

from motion_depth.training.summary import warmup_remark


@pytest.mark.parametrize(
    ("scheduler", "warmup", "updates", "expected"),
    [
        (
            "constant_with_warmup",
            100,
            328,
            "--lr_warmup_steps 100: 30% of the run's 328 optimizer updates are",
        ),
        ("cosine", 101, 1000, "a tenth would be 100"),
        ("linear", 50, 40, "100% of the run's 40 "),
        ("constant_with_warmup", 100, 2625, None),  # the reference job
        ("cosine", 100, 1000, None),
        ("constant", 100, 10, None),  # has no warm-up
        ("cosine", 0, 1, None),
    ],
)
def test_a_long_warm_up_is_remarked_on(scheduler, warmup, updates, expected):
    remark = warmup_remark(scheduler, warmup, updates)
    assert remark is None if expected is None else expected in remark
