"""The stock loop: the library's `launch_training_task` with a module written as its own example for TI2V is.

The module runs every pipeline unit (text encoder, VAE, first frame) and the library's `FlowMatchSFTLoss` at every step.
The heads read the DiT through forward hooks, which is how they can be had without changing the library.
"""

from __future__ import annotations

from accelerate import Accelerator
from diffsynth.diffusion.loss import FlowMatchSFTLoss
from diffsynth.diffusion.runner import launch_training_task
from diffsynth.diffusion.training_module import DiffusionTrainingModule
from diffsynth.pipelines.wan_video import WanVideoPipeline
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from motion_depth.clips.dataset import MotionDepthDataset, raise_load_errors
from motion_depth.model.heads import DitFeatures, MotionDepthHeads
from motion_depth.model.weights import quiet
from motion_depth.readouts import READOUTS
from motion_depth.readouts.losses import head_losses, total_loss
from motion_depth.readouts.statistics import neutral
from motion_depth.readouts.targets import Targets
from tools.benchmarks.timing import StepClock

LORA_TARGETS = "q,k,v,o,ffn.0,ffn.2"


class StockDataset(Dataset):
    """Items as the library's video operator hands them over: pictures and a prompt; and the targets."""

    load_from_cache = False  # the library's loop asks for it

    def __init__(self, dataset: MotionDepthDataset, length: int):
        self.dataset, self.length = dataset, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> dict:
        (sample,) = raise_load_errors([self.dataset[position]])
        video = [Image.fromarray(frame) for frame in sample.frames.numpy()]
        return {"video": video, "input_image": video[0], "prompt": sample.prompt, "targets": sample.targets}


class StockModule(DiffusionTrainingModule):
    """The example's training module for TI2V, with the two heads."""

    def __init__(self, pipe: WanVideoPipeline, heads: MotionDepthHeads, stage: int, rank: int, checkpointing: bool):
        super().__init__()
        self.pipe, self.heads, self.stage, self.checkpointing = pipe, heads, stage, checkpointing
        self.clock: StepClock | None = None
        with quiet():
            lora = {"lora_base_model": "dit", "lora_target_modules": LORA_TARGETS, "lora_rank": rank}
            self.switch_pipe_to_training_mode(pipe, trainable_models=None, **(lora if stage == 2 else {}))
        self.captured: dict[int | str, Tensor] = {}
        for index in heads.config.taps:
            pipe.dit.blocks[index].register_forward_hook(lambda _, __, out, i=index: self._keep(i, out))
        pipe.dit.time_embedding.register_forward_hook(lambda _, __, out: self._keep("time", out))
        pipe.dit.patch_embedding.register_forward_pre_hook(lambda _, args: self._keep("latents", args[0]))

    def _keep(self, name: int | str, value: Tensor) -> None:
        self.captured.setdefault(name, value)  # not again when checkpointing recomputes a block

    def forward(self, data: dict, inputs: tuple | None = None) -> Tensor:
        self.clock.data_is_there()
        targets = data.pop("targets")
        first = data["video"][0]
        shared = {
            "input_video": data["video"], "input_image": data["input_image"], "height": first.size[1],
            "width": first.size[0], "num_frames": len(data["video"]), "cfg_scale": 1, "tiled": False,
            "rand_device": self.pipe.device, "use_gradient_checkpointing": self.checkpointing,
            "use_gradient_checkpointing_offload": False, "cfg_merge": False, "vace_scale": 1,
            "max_timestep_boundary": 1, "min_timestep_boundary": 0,
        }  # fmt: skip
        inputs = self.transfer_data_to_device(
            (shared, {"prompt": data["prompt"]}, {}), self.pipe.device, self.pipe.torch_dtype
        )
        for unit in self.pipe.units:
            inputs = self.pipe.unit_runner(unit, self.pipe, *inputs)
        self.captured.clear()
        shared, positive, _ = inputs
        flow = FlowMatchSFTLoss(self.pipe, **shared, **positive)
        targets = Targets.stack([targets]).to(self.pipe.device)
        losses = head_losses(self.heads(self._features()), targets, neutral().scales)
        total = total_loss(losses, dict.fromkeys(READOUTS, 1.0)).mean()
        return total + flow.squeeze() if self.stage == 2 else total

    def _features(self) -> DitFeatures:
        latents = self.captured["latents"]
        f, h, w = latents.shape[2], latents.shape[3] // 2, latents.shape[4] // 2
        time = self.captured["time"].reshape(f, h * w, -1)[None, :, 0]  # the library computes it for every token
        taps = [self.captured[index] for index in self.heads.config.taps]
        return DitFeatures(taps, time, latents, (f, h, w))


class _Recorder:
    """Stands where the library's ModelLogger does, and writes nothing."""

    def __init__(self, clock: StepClock):
        self.clock = clock

    def on_step_end(self, *_, **__) -> None:
        self.clock.end_step()

    def on_epoch_end(self, *_) -> None: ...

    on_training_end = on_epoch_end


def run_stock(
    accelerator: Accelerator, module: StockModule, dataset: MotionDepthDataset, steps: int, workers: int
) -> StepClock:
    """Drives the library's loop for some steps, and returns what they took."""
    module.clock = clock = StepClock(accelerator.device)
    items = StockDataset(dataset, steps)
    launch_training_task(accelerator, items, module, _Recorder(clock), num_workers=workers)
    return clock
