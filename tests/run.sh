#!/usr/bin/env bash
# Runs the tests on the CPU, without network; makes the Python environment first if it is not there.
#
#   bash tests/run.sh                                  # all of them
#   bash tests/run.sh tests/test_motion.py -k compose  # pytest's arguments
#   CUDA_VISIBLE_DEVICES=0 bash tests/run.sh           # on a GPU
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export VENV="${VENV:-$ROOT/.venv}"
bash "$ROOT/tools/setup.sh"
VENV="$(cd "$VENV" && pwd)"

cores="$(getconf _NPROCESSORS_ONLN)"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores < 4 ? cores : 4))}"
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-}"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 DIFFSYNTH_SKIP_DOWNLOAD=True
export WANDB_MODE=offline WANDB_SILENT=true TOKENIZERS_PARALLELISM=false

args=()
for arg in "$@"; do # a path is relative to where the user is, but pytest runs in the project's folder
    if [[ "$arg" != -* && -e "${arg%%::*}" ]]; then
        arg="$PWD/$arg"
    fi
    args+=("$arg")
done
cd "$ROOT"
exec "$VENV/bin/python" -m pytest -q "${args[@]}"
