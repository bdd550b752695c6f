# shellcheck shell=bash
# What tools/demo.sh, ablate.sh and scale.sh set for the stage scripts: the demo's scenes, a small model, small clips.
#
#   source tools/demo/settings.sh
#
# Each can be given from the environment.
DEMO_DIR="${DEMO_DIR:-./demo}"
export DATASET_BASE_PATH="$DEMO_DIR/train" DATASET_METADATA_PATH="$DEMO_DIR/train.csv"
export MODEL_BASE_PATH="$DEMO_DIR/tiny_wan" STAGE1_PATH="$DEMO_DIR/stage1" CACHE_PATH="${CACHE_PATH-$DEMO_DIR/cache}"
export HEIGHT="${HEIGHT:-128}" WIDTH="${WIDTH:-128}" NUM_FRAMES="${NUM_FRAMES:-17}" FRAME_STRIDE="${FRAME_STRIDE:-1}"
export HEAD_SIZE="${HEAD_SIZE:-small}"
# Many clips and one frame of each: what a scene's depth is shows in any of its frames.
export BATCH_SIZE="${BATCH_SIZE:-16}" LOSS_FRAMES="${LOSS_FRAMES:-1}"
export GRADIENT_ACCUMULATION_STEPS="${GRADIENT_ACCUMULATION_STEPS:-1}"
export HEADS_LEARNING_RATE=1e-3 # of stage 1
export LR_SCHEDULER="${LR_SCHEDULER:-cosine}" LR_WARMUP_STEPS="${LR_WARMUP_STEPS:-50}"
# Loader processes need shared memory, of which a container may have little (docker gives 64 MB).
if [[ -d /dev/shm ]] && (($(df -Pk /dev/shm | awk 'END { print $4 }') < 256 * 1024)); then
    DATASET_NUM_WORKERS="${DATASET_NUM_WORKERS:-0}"
fi
export NUM_PROCESSES="${NUM_PROCESSES:-1}" DATASET_NUM_WORKERS="${DATASET_NUM_WORKERS:-2}"
export SAVE_STEPS="${SAVE_STEPS:-200}" KEEP_LAST="${KEEP_LAST:-1}" WANDB_MODE="${WANDB_MODE:-offline}"
export VENV="${VENV:-$ROOT/.venv}"
export PYTHON="${PYTHON:-$VENV/bin/python}"
