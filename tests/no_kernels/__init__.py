"""A CUDA whose kernels do nothing (cuda.c), for what a GPU would be asked to do, on a machine that has none.

It shows where the host waits for the device, where the device waits for the host, wrong devices and types. It says
nothing about numbers, speed or memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
# The wheel of the headers leaves this one out: what a compiler for kernels would know.
HOST_DEFINES = """
#define __host__
#define __device__
#define __global__
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __forceinline__ inline
#define __location__(x)
"""
PRELUDE = """
import ctypes, os, torch
torch.backends.cudnn.enabled = False
torch.backends.cuda.enable_cudnn_sdp(False)
cuda = ctypes.CDLL(os.environ["LD_PRELOAD"])
"""


class NoKernels:
    """Compiles the library into a folder; skips the test, with the reason, where that cannot be done."""

    def __init__(self, folder: Path):
        if sys.platform != "linux" or torch.version.cuda is None:
            pytest.skip("needs Linux and a torch that is built for CUDA")
        if (gcc := shutil.which("gcc")) is None:
            pytest.skip("needs gcc")
        # The folder that holds torch also holds what its wheel depends on.
        found = sorted(Path(torch.__file__).parents[1].glob("nvidia/cu*/include/cuda_runtime_api.h"))
        if not found:
            pytest.skip("needs CUDA's headers, which torch's wheel brings")
        (folder / "crt").mkdir()
        (folder / "crt/host_defines.h").write_text(HOST_DEFINES)
        self.library = folder / "libcuda.so.1"  # torch opens the driver by this name
        includes = [f"-I{folder}", f"-I{found[-1].parent}"]
        source = Path(__file__).with_name("cuda.c")
        subprocess.run(
            [gcc, "-w", "-O1", "-shared", "-fPIC", *includes, source, "-o", self.library, "-lpthread"], check=True
        )

    def run(self, program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
        """Python code in a process of its own that sees a GPU; `cuda` in it is the library, for ctypes."""
        settings = {
            "LD_PRELOAD": str(self.library), "LD_LIBRARY_PATH": str(self.library.parent), "OMP_NUM_THREADS": "1",
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline",
            "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        return subprocess.run(
            [sys.executable, "-c", PRELUDE + program, *map(str, arguments)],
            capture_output=True, text=True, env=inherited | settings | environment,
        )  # fmt: skip
