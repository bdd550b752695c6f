#!/usr/bin/env bash
# How much faster training gets with more processes: runs a stage script with each number of them and prints a table.
#
#   PROCESSES="1 2 4 8" bash tools/demo/scale.sh 1   # stage 1 on your data, set as for training
#   PROCESSES="1 2" bash tools/demo/scale.sh 2       # without DATASET_BASE_PATH: on those of tools/demo.sh
#
# The first argument is the stage, the rest are flags of the training script. Each process has as many clips as before,
# so the whole does more. Every iteration is an update (GRADIENT_ACCUMULATION_STEPS), which is when processes exchange
# gradients. A CPU process computes in one thread, so that processes do not take each other's cores. STEPS: iterations
# of each run; speeds are medians over the second half of them. Nothing of the runs is kept.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
STAGE="${1:-}"
read -ra PROCESSES <<<"${PROCESSES:-1 2}"
STEPS="${STEPS:-40}"
case "$STAGE" in
1) SCRIPT="$ROOT/train_wan22_stage1_heads.sh" ;;
2) SCRIPT="$ROOT/train_wan22_stage2_lora.sh" ;;
*)
    echo "error: tools/demo/scale.sh needs the stage, 1 or 2, such as: bash tools/demo/scale.sh 1" >&2
    exit 2
    ;;
esac
shift

if [[ -z "${DATASET_BASE_PATH:-}" ]]; then
    BATCH_SIZE="${BATCH_SIZE:-4}" LOSS_FRAMES="${LOSS_FRAMES:-0}"
    # shellcheck source=tools/demo/settings.sh
    source "$ROOT/tools/demo/settings.sh"
    [[ -d "$DEMO_DIR/stage1/final" ]] || {
        echo "error: $DEMO_DIR/stage1/final is not there; run tools/demo.sh first, or set DATASET_BASE_PATH" >&2
        exit 2
    }
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" GRADIENT_ACCUMULATION_STEPS="${GRADIENT_ACCUMULATION_STEPS:-1}"
export LR_WARMUP_STEPS="${LR_WARMUP_STEPS:-0}" # what is learned is thrown away
FOLDER="$(mktemp -d)"
trap 'rm -rf "$FOLDER"' EXIT

for number in "${PROCESSES[@]}"; do
    OUTPUT_PATH="$FOLDER/$number" NUM_PROCESSES="$number" MAX_STEPS="$STEPS" SAVE_STEPS=0 USE_WANDB=0 \
        VAL_METADATA_PATH="" bash "$SCRIPT" "$@" >&2
done

"${PYTHON:-python3}" - "$FOLDER" "${PROCESSES[@]}" <<'PY'
import json, statistics, sys
from pathlib import Path

print("| processes | clips/s | of one process, times their number | waiting for data |")
print("| --- | --- | --- | --- |")
first = None
for number in sys.argv[2:]:
    rows = [json.loads(line) for line in (Path(sys.argv[1]) / number / "log.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "clips_per_s" in row]
    rows = rows[len(rows) // 2 :]
    speed, wait = (statistics.median(row[name] for row in rows) for name in ("clips_per_s", "data_wait"))
    first = first or speed / int(number)
    print(f"| {number} | {speed:.3g} | {speed / first / int(number):.0%} | {wait:.1%} |")
PY
