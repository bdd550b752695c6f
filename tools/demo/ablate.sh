#!/usr/bin/env bash
# What a part of the heads is worth: trains heads with other flags on the demo's scenes, scores them on its held-out
# scenes and prints a row of the table in docs/heads.md.
#
#   bash tools/demo.sh                                           # once: scenes, model, encoded clips
#   bash tools/demo/ablate.sh dense
#   bash tools/demo/ablate.sh linear --head linear
#   STEPS=2000 bash tools/demo/ablate.sh long                         # more training
#
# The first argument names the row and its folder, DEMO_DIR/ablation/NAME; the rest are flags of the training script.
# A row whose folder is there is printed again without training.
set -euo pipefail

(($# > 0)) || {
    echo "error: tools/demo/ablate.sh needs a name for the row, such as:" \
        "bash tools/demo/ablate.sh linear --head linear" >&2
    exit 2
}
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
NAME="$1"
STEPS="${STEPS:-300}" # iterations
shift

# shellcheck source=tools/demo/settings.sh
source "$ROOT/tools/demo/settings.sh"
FOLDER="$DEMO_DIR/ablation/$NAME"
[[ -d "$DEMO_DIR/tiny_wan" ]] || {
    echo "error: $DEMO_DIR/tiny_wan is not there; run tools/demo.sh first, with the same DEMO_DIR" >&2
    exit 2
}

if [[ ! -e "$FOLDER/evaluation/metrics.json" ]]; then
    rm -rf "$FOLDER/evaluation" # of a row that was stopped in the middle
    OUTPUT_PATH="$FOLDER" MAX_STEPS="$STEPS" LEARNING_RATE="${LEARNING_RATE:-$HEADS_LEARNING_RATE}" USE_WANDB=0 \
        bash "$ROOT/train_wan22_stage1_heads.sh" "$@"
    "$PYTHON" "$ROOT/tools/evaluate.py" --checkpoint "$FOLDER/final" --model_base_path "$MODEL_BASE_PATH" \
        --dataset_base_path "$DEMO_DIR/heldout" --dataset_metadata_path "$DEMO_DIR/heldout.csv" \
        --noise_levels 0.02 0.5 1.0 --pictures 2 --output "$FOLDER/evaluation"
fi

"$PYTHON" - "$NAME" "$FOLDER/evaluation/metrics.json" <<'PY'
import json, sys

overall = json.load(open(sys.argv[2]))["overall"]
shares = [overall[sigma][name] / overall[sigma][f"{name}_baseline"]
          for name in ("abs_rel", "moving_epe") for sigma in ("0.02", "0.5", "1.0")]
near = overall["0.02"]
numbers = [f"{near['abs_rel']:.3f}", f"{near['moving_epe']:.2f}", f"{near['epe']:.3f}", *(f"{s:.2f}" for s in shares)]
print("| row | AbsRel | moving EPE | EPE | AbsRel / baseline at 0.02, 0.5, 1.0 | moving EPE / baseline |")
print(f"| {sys.argv[1]} | {' | '.join(numbers[:3])} | {', '.join(numbers[3:6])} | {', '.join(numbers[6:])} |")
PY
