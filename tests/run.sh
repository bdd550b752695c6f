#!/usr/bin/env bash
# Runs the tests on the CPU, without network; makes the Python environment first if it is not there. All of them run in
# as many processes as there are cores, at most 4.
#
#   bash tests/run.sh                                  # all of them
#   bash tests/run.sh tests/data/test_motion.py -k compose  # pytest's arguments
#   CUDA_VISIBLE_DEVICES=0 bash tests/run.sh           # on a GPU
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export VENV="${VENV:-$ROOT/.venv}"
bash "$ROOT/tools/setup.sh"
VENV="$(cd "$VENV" && pwd)"

cores="$(getconf _NPROCESSORS_ONLN)"
cores=$((cores < 4 ? cores : 4))
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-}"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 DIFFSYNTH_SKIP_DOWNLOAD=True
export WANDB_MODE=offline WANDB_SILENT=true TOKENIZERS_PARALLELISM=false

args=()
if (($# == 0 && cores > 1)); then
    args=(--numprocesses "$cores" --dist loadfile) # what a file's tests share is made once
    cores=1
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$cores}"
for arg in "$@"; do # a path is relative to where the user is, but pytest runs in the project's folder
    if [[ "$arg" != -* && -e "${arg%%::*}" ]]; then
        arg="$PWD/$arg"
    fi
    args+=("$arg")
done
cd "$ROOT"
exec "$VENV/bin/python" -m pytest -q "${args[@]}"
