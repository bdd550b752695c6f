# shellcheck shell=bash
# How a stage script starts the training script; sourced by both, does nothing by itself.
#
#   PYTHON, VENV            which Python (default: an activated environment, else the project's .venv, else python3)
#   NUM_PROCESSES           processes on each machine (default: the visible GPUs; 1 on a CPU)
#   MIXED_PRECISION         bf16 or no (default: bf16 on GPUs, no on a CPU)
#   NUM_MACHINES, MACHINE_RANK, MAIN_PROCESS_IP, MAIN_PROCESS_PORT   several machines: the same call on each of them
#   ACCELERATE_CONFIG       accelerate configuration for several processes, such as configs/fsdp.yaml (default: DDP)
#   DRY_RUN=1               print the command instead of running it

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TRAINING_SCRIPT="$ROOT/train_wan22_ti2v_motion_depth.py"

NUM_MACHINES="${NUM_MACHINES:-1}"
MACHINE_RANK="${MACHINE_RANK:-0}"
MAIN_PROCESS_IP="${MAIN_PROCESS_IP:-}"
MAIN_PROCESS_PORT="${MAIN_PROCESS_PORT:-}"
ACCELERATE_CONFIG="${ACCELERATE_CONFIG:-}"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Succeeds when the flag $1 is among the others, as `--flag value` or `--flag=value`.
has_flag() {
    local flag="$1" word
    shift
    for word in "$@"; do
        [[ "$word" != "$flag" && "$word" != "$flag="* ]] || return 0
    done
    return 1
}

# Prints the value of the setting $1: of the last such flag among the others, else of the variable.
value_of() {
    local flag="--${1,,}" value="${!1}" word before=""
    shift
    for word in "$@"; do
        [[ "$before" != "$flag" ]] || value="$word"
        [[ "$word" != "$flag="* ]] || value="${word#*=}"
        before="$word"
    done
    printf '%s' "$value"
}

# Succeeds when the losses of both heads have the weight 0, among the settings or the given flags.
without_heads() {
    local name
    for name in MOTION_LOSS_WEIGHT DEPTH_LOSS_WEIGHT; do
        [[ "$(value_of "$name" "$@")" =~ ^0*\.?0*$ ]] || return 1
    done
}

# Sets PYTHON and NUM_GPUS (the GPUs that CUDA_VISIBLE_DEVICES leaves visible).
find_python() {
    if [[ -z "${PYTHON:-}" ]]; then
        if [[ -n "${VENV:-}" ]]; then
            PYTHON="$VENV/bin/python"
        elif [[ -n "${VIRTUAL_ENV:-}" ]]; then
            PYTHON="$VIRTUAL_ENV/bin/python"
        elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-base}" != base ]]; then
            PYTHON="$CONDA_PREFIX/bin/python"
        elif [[ -x "$ROOT/.venv/bin/python" ]]; then
            PYTHON="$ROOT/.venv/bin/python"
        else
            PYTHON=python3
        fi
    fi
    command -v "$PYTHON" >/dev/null || fail "there is no Python at $PYTHON; run 'bash tools/setup.sh' or set PYTHON"
    local complete='import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))'
    "$PYTHON" -c "$complete" torch diffsynth accelerate ||
        fail "$PYTHON lacks torch, diffsynth or accelerate; run 'bash tools/setup.sh', or set PYTHON to one with them"
    local status=0
    NUM_GPUS="$(PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m motion_depth.processes.devices)" || status=$?
    ((status != 2)) || exit 2 # it has said which GPUs cannot be used, and why
    ((status == 0)) || fail "$PYTHON cannot import torch; its message stands above"
}

# Sets NUM_PROCESSES and MIXED_PRECISION where the user did not, and checks what they did set.
find_devices() {
    local name
    if ((NUM_GPUS > 0)); then
        NUM_PROCESSES="${NUM_PROCESSES:-$NUM_GPUS}" MIXED_PRECISION="${MIXED_PRECISION:-bf16}"
    else
        NUM_PROCESSES="${NUM_PROCESSES:-1}" MIXED_PRECISION="${MIXED_PRECISION:-no}"
    fi
    for name in NUM_PROCESSES NUM_MACHINES; do
        [[ "${!name}" =~ ^[1-9][0-9]*$ ]] || fail "$name=${!name} is not a whole number above 0"
    done
    if ! [[ "$MACHINE_RANK" =~ ^(0|[1-9][0-9]*)$ ]] || ((MACHINE_RANK >= NUM_MACHINES)); then
        fail "MACHINE_RANK=$MACHINE_RANK is not between 0 and NUM_MACHINES - 1 = $((NUM_MACHINES - 1))"
    elif ((NUM_MACHINES > 1)) && [[ -z "$MAIN_PROCESS_IP" ]]; then
        fail "NUM_MACHINES=$NUM_MACHINES needs MAIN_PROCESS_IP, the address of the machine with MACHINE_RANK=0"
    elif ((NUM_GPUS > 0 && NUM_PROCESSES > NUM_GPUS)); then
        fail "NUM_PROCESSES=$NUM_PROCESSES, but $NUM_GPUS GPUs are visible; one process needs one GPU"
    elif [[ -n "$ACCELERATE_CONFIG" && ! -f "$ACCELERATE_CONFIG" ]]; then
        fail "ACCELERATE_CONFIG=$ACCELERATE_CONFIG is not a file; configs/ holds some"
    elif [[ -n "$ACCELERATE_CONFIG" ]] && ((NUM_PROCESSES * NUM_MACHINES == 1)); then
        fail "ACCELERATE_CONFIG=$ACCELERATE_CONFIG is for several processes, but there is one; set NUM_PROCESSES"
    fi
}

# Sets MODEL_BASE_PATH or MODEL_ID_WITH_ORIGIN_PATHS, and WEIGHTS to show: the weights in a local folder if they are
# there, else by model id (downloaded on first use). A folder that the user named must exist; the default one counts
# only when it is whole, because a download by model id leaves its own files in the same place.
find_weights() {
    local id="Wan-AI/Wan2.2-TI2V-5B"
    local default="${DIFFSYNTH_MODEL_BASE_PATH:-./models}/$id"
    if [[ -n "${MODEL_BASE_PATH:-}" ]]; then
        [[ -d "$MODEL_BASE_PATH" ]] || fail "MODEL_BASE_PATH=$MODEL_BASE_PATH is not a folder; give the folder of" \
            "Wan2.2-TI2V-5B or leave MODEL_BASE_PATH unset to load $id by its model id"
    elif compgen -G "$default/diffusion_pytorch_model*.safetensors" >/dev/null && [[ -d "$default/google/umt5-xxl" &&
        -f "$default/models_t5_umt5-xxl-enc-bf16.pth" && -f "$default/Wan2.2_VAE.pth" ]]; then
        MODEL_BASE_PATH="$default"
    fi
    MODEL_ID_WITH_ORIGIN_PATHS="" WEIGHTS="${MODEL_BASE_PATH:-$id by model id}"
    if [[ -z "$MODEL_BASE_PATH" ]]; then
        MODEL_ID_WITH_ORIGIN_PATHS="$id:models_t5_umt5-xxl-enc-bf16.pth"
        MODEL_ID_WITH_ORIGIN_PATHS+=",$id:diffusion_pytorch_model*.safetensors,$id:Wan2.2_VAE.pth"
    fi
}

# Sets FLAGS: each setting at the top of the stage script ($1) as the training script's flag of the same name, in small
# letters, but for those that are empty.
# shellcheck disable=SC2034,SC2153 # names that are read by way of ${!name}, and that the stage scripts set
settings_to_flags() {
    local name trackers=",$REPORT_TO,"
    [[ "$USE_WANDB" != 0 ]] || trackers="${trackers//,wandb,/,none,}"
    trackers="${trackers#,}"
    REPORT_TO="${trackers%,}"
    [[ -n "$VAL_METADATA_PATH" ]] || VAL_STEPS=""
    FLAGS=()
    for name in $(sed -nE 's/^([A-Z0-9_]+)="\$\{\1:?-.*/\1/p' "$1") MODEL_ID_WITH_ORIGIN_PATHS MIXED_PRECISION; do
        case "$name" in
            STAGE1_PATH | USE_WANDB) ;; # no flags: what they decide is in HEADS_CHECKPOINT and REPORT_TO
            COMPILE) [[ "$COMPILE" == 0 ]] || FLAGS+=(--compile) ;;
            *) [[ -z "${!name}" ]] || FLAGS+=("--${name,,}" "${!name}") ;;
        esac
    done
}

# Prints what is about to run; the training script adds what it reads from the data (scenes, clips, updates).
# $1 = title, the rest = the flags that the user added.
# shellcheck disable=SC2153,SC2154 # the stage scripts set these
describe_run() {
    local title="$1" device=CPU length="$NUM_EPOCHS epochs"
    shift
    ((NUM_GPUS == 0)) || device=GPU
    [[ "$MAX_STEPS" == 0 ]] || length+=", at most $MAX_STEPS iterations"
    cat <<TEXT
$title
  data      $DATASET_BASE_PATH, scenes and prompts from $DATASET_METADATA_PATH, $DATASET_REPEAT clips of each an epoch
  clips     $NUM_FRAMES frames of ${HEIGHT}x$WIDTH, frame stride $FRAME_STRIDE
  weights   $WEIGHTS
  training  $length, batch $BATCH_SIZE, $GRADIENT_ACCUMULATION_STEPS iterations an update, learning rate $LEARNING_RATE
  devices   $((NUM_PROCESSES * NUM_MACHINES)) x $device, precision $MIXED_PRECISION
  results   $OUTPUT_PATH, a checkpoint every $SAVE_STEPS iterations and final/
TEXT
    if (($#)); then
        printf '  and       %s\n' "$*"
    fi
}

# Starts the training script with the given flags; this shell's exit status is the script's own, and signals reach it.
# One process needs no launcher and replaces this shell. Several go through `accelerate launch` on GPUs, every setting
# given, so that a stored accelerate configuration changes nothing but one that ACCELERATE_CONFIG names; on CPUs through
# torchrun, because there `accelerate launch` without a configuration starts only one.
launch() {
    local total=$((NUM_PROCESSES * NUM_MACHINES)) command=("$PYTHON")
    if ((NUM_GPUS == 0)); then
        export ACCELERATE_USE_CPU=true
    fi
    if ((total > 1)); then
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(threads_per_process)}"
    fi
    if ((total > 1)) && { ((NUM_GPUS > 0)) || [[ -n "$ACCELERATE_CONFIG" ]]; }; then
        command+=(-m accelerate.commands.launch)
        if [[ -n "$ACCELERATE_CONFIG" ]]; then
            command+=(--config_file "$ACCELERATE_CONFIG")
        else
            command+=(--multi_gpu)
        fi
        command+=(--gpu_ids all --num_processes "$total" --num_machines "$NUM_MACHINES"
            --machine_rank "$MACHINE_RANK" --mixed_precision "$MIXED_PRECISION" --dynamo_backend no
            --num_cpu_threads_per_process "$OMP_NUM_THREADS")
        if ((NUM_MACHINES == 1)); then
            command+=(--main_process_port "${MAIN_PROCESS_PORT:-0}") # 0: any free one; two jobs fit on a machine
        else
            command+=(--main_process_ip "$MAIN_PROCESS_IP" --main_process_port "${MAIN_PROCESS_PORT:-29500}")
        fi
    elif ((total > 1)); then
        command+=(-m torch.distributed.run --nproc_per_node "$NUM_PROCESSES")
        if ((NUM_MACHINES == 1)); then
            command+=(--standalone)
        else
            command+=(--nnodes "$NUM_MACHINES" --node_rank "$MACHINE_RANK"
                --master_addr "$MAIN_PROCESS_IP" --master_port "${MAIN_PROCESS_PORT:-29500}")
        fi
    fi
    command+=("$TRAINING_SCRIPT" "$@")
    if [[ "${DRY_RUN:-0}" == 1 ]]; then
        printf '%q ' "${command[@]}"
        printf '\n'
        exit 0
    fi
    ((total > 1)) || exec "${command[@]}"
    watch_over "${command[@]}"
}

# Runs a launcher, which would turn every exit status into 1 and kill its processes half a minute after a signal: they
# get signals from here, and tell their exit status and the reason in a file.
watch_over() {
    local status=0 folder code=""
    folder="$(mktemp -d)"
    export MOTION_DEPTH_EXIT_REPORT="$folder/report"
    set -m # in a process group of its own, so that Ctrl-C comes here first
    "$@" &
    local launcher=$!
    # shellcheck disable=SC2064 # the values of now
    for name in TERM INT USR1; do
        trap "hand_on $name $launcher '$folder'" "$name"
    done
    while kill -0 "$launcher" 2>/dev/null; do # `wait` also returns for a signal
        status=0
        wait "$launcher" || status=$?
    done
    if [[ -f "$folder/report" ]]; then
        { read -r code && IFS= read -r -d '' reason; } <"$folder/report" || true
        if [[ "$code" =~ ^[123]$ ]]; then # the launcher's own report stands below what the process has said
            printf 'error: %s' "$reason" >&2
        fi
        status="${code:-$status}"
    fi
    rm -rf "$folder"
    exit "$status"
}

# Signal $1 to the training processes that listen, or else, if they have not begun to, to the launcher $2.
hand_on() {
    local listening=("$3"/report.*.pid) file
    if [[ -e "${listening[0]}" ]]; then
        for file in "${listening[@]}"; do
            kill -s "$1" "$(basename "${file%.pid}" | cut -d. -f2)" 2>/dev/null || true
        done
    else
        kill -s TERM "$2" 2>/dev/null || true
    fi
}

threads_per_process() { # the cores shared by this machine's processes, at most 8 each
    local threads=$(($(getconf _NPROCESSORS_ONLN) / NUM_PROCESSES))
    ((threads < 8)) || threads=8
    echo $((threads > 1 ? threads : 1))
}
