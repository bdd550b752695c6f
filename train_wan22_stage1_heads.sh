#!/usr/bin/env bash
# Stage 1: train the motion head and the depth head on the frozen DiT.
#
#   bash train_wan22_stage1_heads.sh                                  # the reference job
#   NUM_FRAMES=81 LEARNING_RATE=5e-5 bash train_wan22_stage1_heads.sh # any setting below, from the environment
#   CUDA_VISIBLE_DEVICES=2,3 bash train_wan22_stage1_heads.sh         # one process on each visible GPU
#   bash train_wan22_stage1_heads.sh --max_steps 10                   # further flags go to the training script
#   DRY_RUN=1 bash train_wan22_stage1_heads.sh                        # print the command, run nothing
#
# Paths are relative to the folder you call it from. tools/launch.sh says how Python, the number of processes
# (NUM_PROCESSES), the precision (MIXED_PRECISION) and several machines (NUM_MACHINES ...) are chosen.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# Data: the scene folders, and the CSV that lists them with their prompts (tools/make_metadata.py writes it)
DATASET_BASE_PATH="${DATASET_BASE_PATH:-./data/Sim_Physics}"
DATASET_METADATA_PATH="${DATASET_METADATA_PATH:-$HERE/data/sim_physics_metadata.csv}"
VAL_METADATA_PATH="${VAL_METADATA_PATH:-}"       # CSV of held-out scenes; empty: no validation
VAL_STEPS="${VAL_STEPS:-500}"                    # iterations between validations
CACHE_PATH="${CACHE_PATH-./cache}"               # every clip is encoded once, into this folder; empty: at every step
DATASET_REPEAT="${DATASET_REPEAT:-100}"          # clips of each scene in an epoch
DATASET_NUM_WORKERS="${DATASET_NUM_WORKERS:-4}"  # loading processes of each training process

# Clips
HEIGHT="${HEIGHT:-480}"                          # pixels, a multiple of 32
WIDTH="${WIDTH:-480}"                            # pixels, a multiple of 32
NUM_FRAMES="${NUM_FRAMES:-49}"                   # 4k + 1
FRAME_STRIDE="${FRAME_STRIDE:-auto}"             # auto: the largest that fits into the scene
MOTION_UNITS="${MOTION_UNITS:-pixels}"           # of the motion files: pixels, normalized or ndc
MOTION_DIRECTION="${MOTION_DIRECTION:-backward}" # backward (as Omniverse Replicator writes) or forward
MOTION_Y_AXIS="${MOTION_Y_AXIS:-down}"           # down or up
MOTION_FRAME_OFFSET="${MOTION_FRAME_OFFSET:-0}"  # frame t's motion lies in the file of frame t + this: 0, 1 or -1

# Model
MODEL_BASE_PATH="${MODEL_BASE_PATH:-}"           # empty: ./models/Wan-AI/Wan2.2-TI2V-5B if whole, else by model id
HEAD="${HEAD:-dense}"                            # dense, or linear: the baseline
HEAD_SIZE="${HEAD_SIZE:-full}"                   # full for the 5B model, small for the demo model

# Training
LEARNING_RATE="${LEARNING_RATE:-1e-4}"
LR_SCHEDULER="${LR_SCHEDULER:-constant_with_warmup}"
LR_WARMUP_STEPS="${LR_WARMUP_STEPS:-100}"        # optimizer updates
WEIGHT_DECAY="${WEIGHT_DECAY:-0.01}"
MAX_GRAD_NORM="${MAX_GRAD_NORM:-1.0}"
NUM_EPOCHS="${NUM_EPOCHS:-10}"
MAX_STEPS="${MAX_STEPS:-0}"                      # stop after this many iterations; 0: NUM_EPOCHS decides
BATCH_SIZE="${BATCH_SIZE:-1}"                    # clips of each process
GRADIENT_ACCUMULATION_STEPS="${GRADIENT_ACCUMULATION_STEPS:-8}"
MOTION_LOSS_WEIGHT="${MOTION_LOSS_WEIGHT:-1.0}"
DEPTH_LOSS_WEIGHT="${DEPTH_LOSS_WEIGHT:-1.0}"
LOSS_FRAMES="${LOSS_FRAMES:-0}"                  # frames of a clip that a step compares; 0: all
NOISE_MIXTURE="${NOISE_MIXTURE:-1,1,1}"          # weights of uniform, low and shifted noise levels
COMPILE="${COMPILE:-0}"                          # 1: torch.compile the DiT's blocks and the heads
SEED="${SEED:-0}"

# Results: step-N/ every SAVE_STEPS iterations, at the end of the update, and final/, which stage 2 starts from
OUTPUT_PATH="${OUTPUT_PATH:-./outputs/stage1}"
SAVE_STEPS="${SAVE_STEPS:-500}"
KEEP_LAST="${KEEP_LAST:-0}"                      # step-N folders to keep; 0: all
RESUME="${RESUME:-auto}"                         # auto: go on from the newest step-N; none; or a step-N folder
REPORT_TO="${REPORT_TO:-wandb}"                  # trackers: wandb, tensorboard, wandb,tensorboard or none
USE_WANDB="${USE_WANDB:-1}"                      # 0: without wandb, whatever REPORT_TO says
WANDB_PROJECT="${WANDB_PROJECT:-wan22-motion-depth}"

# shellcheck source=tools/launch.sh
source "$HERE/tools/launch.sh"
find_python
find_devices
find_weights
if has_flag --heads_checkpoint "$@"; then
    HEAD="" HEAD_SIZE="" # a checkpoint knows the architecture of its heads
fi
settings_to_flags "${BASH_SOURCE[0]}"
describe_run "Stage 1: motion head and depth head on the frozen DiT" "$@"
launch --stage 1 "${FLAGS[@]}" "$@"
