#!/usr/bin/env bash
# Both stages from nothing, on any machine: physics scenes, a tiny model, stage 1, stage 2, a table of losses, a panel.
#
#   bash tools/demo.sh
#   DEMO_DIR=/data/demo STAGE1_STEPS=2000 bash tools/demo.sh
#   PYTHON=python3.12 bash tools/demo.sh       # the Python that tools/setup.sh makes the environment with
#
# Needs no GPU, weights or dataset: scenes are simulated and rendered here, and the model has WAN2.2-TI2V-5B's shape at
# a tiny size. The two stage scripts run as they are; only their settings differ from the reference job's. Run again, it
# keeps what stands and goes on where it was stopped; delete DEMO_DIR to start over.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SCENES="${SCENES:-all}"                    # kinds of scenes; ball_collide must be among them, the panel shows it
TRAIN_VARIATIONS="${TRAIN_VARIATIONS:-12}" # scenes of each kind to train on
TRAIN_FRAMES="${TRAIN_FRAMES:-29}"         # frames of a scene
HELDOUT_FRAMES="${HELDOUT_FRAMES:-33}"
STAGE1_STEPS="${STAGE1_STEPS:-500}"        # iterations
STAGE2_STEPS="${STAGE2_STEPS:-40}"
WARMUP="${LR_WARMUP_STEPS:-}"              # updates; empty: a tenth of each stage's steps

bash "$ROOT/tools/setup.sh"
unset PYTHON # it was to make the environment with; from here on it is the environment's own
# shellcheck source=tools/demo/settings.sh
source "$ROOT/tools/demo/settings.sh"
SECONDS=0

heading() {
    printf '\n== %s (%d min %02d s)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

read -ra kinds <<<"$SCENES"
scenes() { # $1 = train or heldout, $2 = seed, $3 = variations, $4 = frames
    "$PYTHON" "$ROOT/tools/demo/make_scenes.py" --output "$DEMO_DIR/$1" --scenes "${kinds[@]}" --seed "$2" \
        --variations "$3" --height "$HEIGHT" --width "$WIDTH" --num_frames "$4"
    "$PYTHON" "$ROOT/tools/make_metadata.py" --dataset_base_path "$DEMO_DIR/$1" --output "$DEMO_DIR/$1.csv"
}

heading "Scenes to train on"
scenes train 0 "$TRAIN_VARIATIONS" "$TRAIN_FRAMES"
heading "Scenes to hold out"
scenes heldout 1 1 "$HELDOUT_FRAMES"

heading "A tiny model in the shape of WAN2.2-TI2V-5B"
"$PYTHON" "$ROOT/tools/demo/make_tiny_wan.py" --dataset_base_path "$DEMO_DIR/train" --output "$DEMO_DIR/tiny_wan"

heading "Stage 1"
OUTPUT_PATH="$DEMO_DIR/stage1" MAX_STEPS="$STAGE1_STEPS" LEARNING_RATE="${LEARNING_RATE:-$HEADS_LEARNING_RATE}" \
    LR_WARMUP_STEPS="${WARMUP:-$((STAGE1_STEPS / 10))}" bash "$ROOT/train_wan22_stage1_heads.sh"
heading "Stage 2"
OUTPUT_PATH="$DEMO_DIR/stage2" MAX_STEPS="$STAGE2_STEPS" LEARNING_RATE="${LEARNING_RATE:-1e-4}" \
    LORA_LEARNING_RATE="${LORA_LEARNING_RATE:-1e-4}" LR_WARMUP_STEPS="${WARMUP:-$((STAGE2_STEPS / 10))}" \
    bash "$ROOT/train_wan22_stage2_lora.sh"

heading "What the model knows of scenes that it was not trained on"
if [[ ! -e "$DEMO_DIR/evaluation/metrics.json" ]]; then
    rm -rf "$DEMO_DIR/evaluation" # of a demo that was stopped in the middle
    "$PYTHON" "$ROOT/tools/evaluate.py" --checkpoint "$DEMO_DIR/stage1/final" --model_base_path "$MODEL_BASE_PATH" \
        --dataset_base_path "$DEMO_DIR/heldout" --dataset_metadata_path "$DEMO_DIR/heldout.csv" \
        --output "$DEMO_DIR/evaluation"
fi

heading "Motion and depth of one held-out video"
# Read, not generated: the tiny DiT has random weights, so what it generates is noise.
if [[ ! -e "$DEMO_DIR/panel/run.json" ]]; then
    rm -rf "$DEMO_DIR/panel"
    "$PYTHON" "$ROOT/tools/generate.py" --checkpoint "$DEMO_DIR/stage2/final" --model_base_path "$MODEL_BASE_PATH" \
        --dataset_base_path "$DEMO_DIR/heldout" --scene test_ball_collide/env_0/0/0 --prompt "Balls collide." --reread \
        --output "$DEMO_DIR/panel"
fi

heading "Losses"
"$PYTHON" "$ROOT/tools/show_losses.py" "$DEMO_DIR/stage1" "$DEMO_DIR/stage2"
cat <<TEXT

scenes        $DEMO_DIR/train, $DEMO_DIR/heldout
heads         $DEMO_DIR/stage1/final
heads, LoRA   $DEMO_DIR/stage2/final
evaluation    $DEMO_DIR/evaluation/report.html
panel         $DEMO_DIR/panel/panel.png
TEXT
