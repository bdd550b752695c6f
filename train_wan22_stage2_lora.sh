#!/usr/bin/env bash
# Stage 2: train the DiT, by LoRA or all of its weights, together with both heads, starting from stage 1's heads.
#
#   bash train_wan22_stage2_lora.sh                             # after bash train_wan22_stage1_heads.sh
#   STAGE1_PATH=runs/a OUTPUT_PATH=runs/b bash train_wan22_stage2_lora.sh
#   bash train_wan22_stage2_lora.sh --heads_checkpoint outputs/stage1/step-5000
#   TUNE=full ACCELERATE_CONFIG=configs/fsdp.yaml bash train_wan22_stage2_lora.sh   # all weights, shared by the GPUs
#   TUNE=full MOTION_LOSS_WEIGHT=0 DEPTH_LOSS_WEIGHT=0 bash train_wan22_stage2_lora.sh   # video alone, no heads
#   LORA_RANK=64 NUM_FRAMES=81 bash train_wan22_stage2_lora.sh  # any setting below, from the environment
#   CUDA_VISIBLE_DEVICES=2,3 bash train_wan22_stage2_lora.sh    # one process on each visible GPU
#   bash train_wan22_stage2_lora.sh --max_steps 10              # further flags go to the training script
#   DRY_RUN=1 bash train_wan22_stage2_lora.sh                   # print the command, run nothing
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
STAGE1_PATH="${STAGE1_PATH-./outputs/stage1}"    # stage 1's OUTPUT_PATH; its final/ holds the heads to start from.
                                                 # Without heads not used; with TUNE=full it may be empty: new heads
TUNE="${TUNE:-lora}"                             # what trains of the DiT: lora, or full, all its weights
LORA_RANK="${LORA_RANK:-32}"
LORA_TARGET_MODULES="${LORA_TARGET_MODULES:-q,k,v,o,ffn.0,ffn.2}" # linear layers of each DiT block

# Training
LEARNING_RATE="${LEARNING_RATE:-5e-5}"           # of the heads, which stage 1 has trained
LORA_LEARNING_RATE="${LORA_LEARNING_RATE:-1e-4}"
DIT_LEARNING_RATE="${DIT_LEARNING_RATE:-1e-5}"   # of all weights, with TUNE=full
EMA_DECAY="${EMA_DECAY:-0}"                      # moving average of what is trained, such as 0.999; 0: off
LR_SCHEDULER="${LR_SCHEDULER:-constant_with_warmup}"
LR_WARMUP_STEPS="${LR_WARMUP_STEPS:-100}"        # optimizer updates
WEIGHT_DECAY="${WEIGHT_DECAY:-0.01}"
MAX_GRAD_NORM="${MAX_GRAD_NORM:-1.0}"
NUM_EPOCHS="${NUM_EPOCHS:-5}"
MAX_STEPS="${MAX_STEPS:-0}"                      # stop after this many iterations; 0: NUM_EPOCHS decides
BATCH_SIZE="${BATCH_SIZE:-1}"                    # clips of each process
GRADIENT_ACCUMULATION_STEPS="${GRADIENT_ACCUMULATION_STEPS:-8}"
MOTION_LOSS_WEIGHT="${MOTION_LOSS_WEIGHT:-1.0}"  # both 0: there are no heads, the video model alone is trained
DEPTH_LOSS_WEIGHT="${DEPTH_LOSS_WEIGHT:-1.0}"
FLOW_LOSS_WEIGHT="${FLOW_LOSS_WEIGHT:-1.0}"      # of the flow-matching loss; 0: nothing behind the last tap trains
FLOW_WEIGHTING="${FLOW_WEIGHTING:-wan}"          # of noise levels in it: wan, the library's (0 at both ends), or none
GRADIENT_CHECKPOINTING="${GRADIENT_CHECKPOINTING:-every}" # blocks recomputed in backward: every, alternate or none
LOSS_FRAMES="${LOSS_FRAMES:-0}"                  # frames of a clip that a step compares; 0: all
NOISE_MIXTURE="${NOISE_MIXTURE:-0,0,1}"          # weights of uniform, low, shifted noise; the flow loss wants shifted
COMPILE="${COMPILE:-0}"                          # 1: torch.compile the DiT's blocks and the heads
SEED="${SEED:-0}"

# Results: step-N/ every SAVE_STEPS iterations, at the end of the update, and final/
OUTPUT_PATH="${OUTPUT_PATH:-./outputs/stage2}"
SAVE_STEPS="${SAVE_STEPS:-500}"
KEEP_LAST="${KEEP_LAST:-0}"                      # step-N folders to keep; 0: all
RESUME="${RESUME:-auto}"                         # auto: go on from the newest step-N; none; or a step-N folder
REPORT_TO="${REPORT_TO:-wandb}"                  # trackers: wandb, tensorboard, wandb,tensorboard or none
USE_WANDB="${USE_WANDB:-1}"                      # 0: without wandb, whatever REPORT_TO says
WANDB_PROJECT="${WANDB_PROJECT:-wan22-motion-depth}"

# shellcheck source=tools/launch.sh
source "$HERE/tools/launch.sh"
WHAT="LoRA (rank $LORA_RANK, learning rate $LORA_LEARNING_RATE) on the DiT" HEADS_FROM=""
if [[ "$(value_of TUNE "$@")" == full ]]; then
    WHAT="all weights of the DiT (learning rate $DIT_LEARNING_RATE)"
fi
if without_heads "$@"; then
    TITLE="Stage 2: $WHAT, without heads"
else
    TITLE="Stage 2: $WHAT, and both heads"
    if ! has_flag --heads_checkpoint "$@" && [[ -n "$STAGE1_PATH" || "$WHAT" == LoRA* ]]; then
        HEADS_FROM="$STAGE1_PATH/final"
        [[ -d "$HEADS_FROM" ]] || fail "there is no $HEADS_FROM, which stage 2 starts from: run" \
            "'bash train_wan22_stage1_heads.sh' first, or set STAGE1_PATH to the OUTPUT_PATH of a finished stage 1"
        TITLE+=", which start from $HEADS_FROM"
    fi
fi
find_python
find_devices
find_weights
settings_to_flags "${BASH_SOURCE[0]}"
[[ -z "$HEADS_FROM" ]] || FLAGS+=(--heads_checkpoint "$HEADS_FROM")
describe_run "$TITLE" "$@"
launch --stage 2 "${FLAGS[@]}" "$@"
