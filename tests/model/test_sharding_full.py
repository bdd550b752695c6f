"""All of the DiT's weights trained by processes that share them, against one process that has all of it."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.sharding import prepare_sharded, whole
from motion_depth.model.tuning import tune_fully
from motion_depth.training.average import WeightAverage
from motion_depth.training.health import gradient_size
from motion_depth.training.optimizer import adamw, capture, named_trainable, restore
from tests.model.test_wan import inputs
from tests.support.processes import in_processes


def update(
    model: MotionDepthModel, optimizer: torch.optim.Optimizer, average: WeightAverage, dtype: torch.dtype
) -> list:
    """One update from two clips; norms of the gradient."""
    data = {name: value.to(dtype) if name != "sigma" else value for name, value in inputs().items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = model(**data, with_flow=True)
    loss = found["flow_error"].mean() + sum(
        found[name].square().mean() for name in found if name in ("motion", "log_depth")
    )
    loss.backward()
    parameters = list(named_trainable(model).values())
    norms = [float(gradient_size(parameters)), float(whole(clip_grad_norm_(parameters, 1.0)))]
    optimizer.step()
    optimizer.zero_grad()
    average.update()
    return norms


def trained(model: MotionDepthModel, dtype: torch.dtype, state: dict | None = None) -> tuple[dict, dict, list]:
    """State after two updates, after three, and the norms of the last one."""
    optimizer = adamw(model, 1e-3, 1e-3, 0.01)
    average = WeightAverage(named_trainable(model), 0.9)
    if state is None:
        update(model, optimizer, average, dtype), update(model, optimizer, average, dtype)
    else:
        restore(model, optimizer, average, state)
        average.updates = 2
    before = capture(model, optimizer, average, True, True)
    norms = update(model, optimizer, average, dtype)
    return before, capture(model, optimizer, average, True, True), norms


@pytest.mark.parametrize(("dtype", "with_heads"), [(torch.float32, False), (torch.bfloat16, True)])
def test_shared_weights_train_as_whole_ones_and_go_on_bit_for_bit(small_dit, small_heads, dtype, with_heads):
    tune_fully(small_dit, dtype)
    model = MotionDepthModel(small_dit, small_heads if with_heads else None, True, "every")

    def run(accelerator: Accelerator) -> tuple:
        results, state = [], None
        for _ in range(2):
            mine = copy.deepcopy(model)
            plugin = FullyShardedDataParallelPlugin(fsdp_version=2, reshard_after_forward=True)
            prepared = prepare_sharded(accelerator, mine, plugin)
            assert all(isinstance(parameter, DTensor) for parameter in prepared.parameters())
            results.append(trained(prepared, dtype, state))
            state = results[0][0]
        (_, first, norms), (_, again, _) = results
        assert first.keys() == again.keys()
        assert all(torch.equal(first[name], again[name]) for name in first)
        return {name: value.numpy() for name, value in first.items()}, norms

    (found, norms), _ = in_processes(run, [2])
    found = {name: torch.from_numpy(value) for name, value in found.items()}
    _, expected, whole_norms = trained(copy.deepcopy(model), dtype)
    assert found.keys() == expected.keys()
    assert norms[1] == pytest.approx(whole_norms[1], rel=1e-2)
    assert all(value.isfinite().all() for value in found.values())
    start = dict(model.named_parameters())
    names = [name for name in expected if name.startswith("weights/")]
    apart = sum((found[name] - expected[name]).square().sum() for name in names)
    moved = sum((expected[name] - start[name.removeprefix("weights/")]).square().sum() for name in names)
    assert float(apart / moved) ** 0.5 < (0.01 if dtype == torch.float32 else 0.2)
