#!/usr/bin/env bash
# The demo's small video model from nothing: scenes, a VAE, a DiT trained on them by flow matching, a card.
#
#   bash tools/demo/pretrain.sh
#   PRETRAIN_DIR=/data/pretrain STEPS=60000 bash tools/demo/pretrain.sh
#   NUM_PROCESSES=1 BATCH_SIZE=128 DIT_LEARNING_RATE=2e-3 STEPS=20000 bash tools/demo/pretrain.sh   # on a GPU
#
# What lies in data/small_wan was made so; docs/tiny_model.md says with what. The DiT trains through the stage-2 script
# with TUNE=full and without heads, as any video model would. Takes hours on two cores and 20 GB of disk for the scenes.
# Stop it at any time; run again, it goes on where it was. Delete PRETRAIN_DIR to start over.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
PRETRAIN_DIR="${PRETRAIN_DIR:-./pretrain}"
SCENES="${SCENES:-all}"            # kinds of scenes
VARIATIONS="${VARIATIONS:-97}"     # scenes of each kind; their seed is 0, the demo holds out seed 1
VAE_STEPS="${VAE_STEPS:-14000}"    # updates of the VAE's decoder
STEPS="${STEPS:-14000}"            # iterations of the DiT
SIZE="${SIZE:---dim 256 --num_heads 8 --num_layers 6 --ffn_dim 768}" # of the DiT, for make_tiny_wan.py

bash "$ROOT/tools/setup.sh"
unset PYTHON
export VENV="${VENV:-$ROOT/.venv}"
export PYTHON="$VENV/bin/python" TUNE=full STAGE1_PATH="" MOTION_LOSS_WEIGHT=0 DEPTH_LOSS_WEIGHT=0
export DATASET_BASE_PATH="$PRETRAIN_DIR/train" DATASET_METADATA_PATH="$PRETRAIN_DIR/train.csv"
export MODEL_BASE_PATH="$PRETRAIN_DIR/start" CACHE_PATH="$PRETRAIN_DIR/cache" OUTPUT_PATH="$PRETRAIN_DIR/dit"
export HEIGHT=128 WIDTH=128 NUM_FRAMES=17 FRAME_STRIDE=1
export BATCH_SIZE="${BATCH_SIZE:-16}" GRADIENT_ACCUMULATION_STEPS=1 GRADIENT_CHECKPOINTING=none
export DIT_LEARNING_RATE="${DIT_LEARNING_RATE:-7e-4}" LR_SCHEDULER=cosine EMA_DECAY="${EMA_DECAY:-0.999}"
# As much weight on what every noise level has to say as on the shifted grid, on which generation spends its steps.
export NOISE_MIXTURE="${NOISE_MIXTURE:-1,0,1}" FLOW_WEIGHTING=none
export MAX_STEPS="$STEPS" NUM_EPOCHS=1000000 SAVE_STEPS="${SAVE_STEPS:-500}" KEEP_LAST="${KEEP_LAST:-2}"
export NUM_PROCESSES="${NUM_PROCESSES:-1}" DATASET_NUM_WORKERS="${DATASET_NUM_WORKERS:-2}" REPORT_TO="${REPORT_TO:-none}" USE_WANDB=0

read -ra kinds <<<"$SCENES"
scenes() { # $1 = train, validation or heldout, $2 = seed, $3 = variations
    "$PYTHON" "$ROOT/tools/demo/make_scenes.py" --output "$PRETRAIN_DIR/$1" --scenes "${kinds[@]}" --seed "$2" \
        --variations "$3" --store half
    "$PYTHON" "$ROOT/tools/make_metadata.py" --dataset_base_path "$PRETRAIN_DIR/$1" --output "$PRETRAIN_DIR/$1.csv"
}

scenes train 0 "$VARIATIONS"
scenes validation 2 1
[[ -e "$PRETRAIN_DIR/frames.npy" ]] ||
    "$PYTHON" "$ROOT/tools/demo/pack_frames.py" --scenes "$PRETRAIN_DIR/train" --output "$PRETRAIN_DIR/frames.npy"
"$PYTHON" "$ROOT/tools/demo/train_vae.py" --frames "$PRETRAIN_DIR/frames.npy" --heldout "$PRETRAIN_DIR/validation" \
    --output "$PRETRAIN_DIR/vae" --steps "$VAE_STEPS"
# shellcheck disable=SC2086  # words
"$PYTHON" "$ROOT/tools/demo/make_tiny_wan.py" --vae "$PRETRAIN_DIR/vae/vae.safetensors" \
    --output "$PRETRAIN_DIR/start" $SIZE
bash "$ROOT/train_wan22_stage2_lora.sh"
[[ -e "$PRETRAIN_DIR/model" ]] ||
    "$PYTHON" "$ROOT/tools/demo/pack_model.py" --model "$PRETRAIN_DIR/start" --checkpoint "$OUTPUT_PATH/final" \
        --vae "$PRETRAIN_DIR/vae" --output "$PRETRAIN_DIR/model"

scenes heldout 1 1
[[ -e "$PRETRAIN_DIR/evaluation" ]] ||
    "$PYTHON" "$ROOT/tools/evaluate_video.py" --model_base_path "$PRETRAIN_DIR/model" --num_frames 17 --frame_stride 1 \
        --height 128 --width 128 --num_inference_steps 30 --cfg_scale 1 --dataset_base_path "$PRETRAIN_DIR/heldout" \
        --dataset_metadata_path "$PRETRAIN_DIR/heldout.csv" --train_base_path "$DATASET_BASE_PATH" \
        --train_metadata_path "$DATASET_METADATA_PATH" --output "$PRETRAIN_DIR/evaluation"
echo "the model: $PRETRAIN_DIR/model; how good it is: $PRETRAIN_DIR/evaluation/tables.md"
