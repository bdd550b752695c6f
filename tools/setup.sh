#!/usr/bin/env bash
# Makes the Python environment once; says so and ends at once when it stands.
#
#   bash tools/setup.sh                       # .venv in the project's folder (it may be a link to a folder elsewhere)
#   VENV=/data/envs/motion bash tools/setup.sh  # use, or make, another one
#   PYTHON=python3.12 bash tools/setup.sh     # make it with this Python (3.10 or newer)
#
# What is installed is requirements.txt and requirements-dev.txt. When either changes, or when an earlier call was
# stopped in the middle, the next call completes the environment. Exit status: 0 it stands, 2 it cannot be made.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"
PYTHON="${PYTHON:-python3}"
STAMP="$VENV/.requirements.sha256"
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

require_python() { # $1 = interpreter, $2 = how to name it to the user
    local version
    version="$("$1" -c 'import platform; print(platform.python_version())' 2>/dev/null)" ||
        fail "$2 does not run; set PYTHON to a Python 3.10 or newer"
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$2 is Python $version, but 3.10 or newer is needed; set PYTHON, or VENV, to another"
}

requirements_hash() { # of both files and of the interpreter, so that a new Python is noticed too
    "$1" - "$ROOT/requirements.txt" "$ROOT/requirements-dev.txt" <<'PY'
import hashlib, pathlib, platform, sys
digest = hashlib.sha256(platform.python_version().encode())
for name in sys.argv[1:]:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

broken_packages() { # names of packages with files that are missing or cut short, as a killed installation leaves them
    "$VENV/bin/python" - <<'PY'
from importlib.metadata import distributions

def is_broken(file):
    path = file.locate()
    return not path.is_file() or (file.size is not None and path.stat().st_size != file.size)

for dist in distributions():
    if dist.metadata is None or not dist.metadata["Name"]:
        continue  # no package to pip either: it has installed a whole one beside it
    if dist.files is None or any(is_broken(file) for file in dist.files if file.suffix != ".pyc"):
        print(f"{dist.metadata['Name']}=={dist.version}")
PY
}

if [[ -x "$VENV/bin/python" && -f "$STAMP" ]] &&
    [[ "$(cat "$STAMP")" == "$(requirements_hash "$VENV/bin/python" 2>/dev/null)" ]]; then
    echo "Python environment $VENV is ready."
    exit 0
fi

if [[ -L "$VENV" && ! -e "$VENV" ]]; then
    fail "$VENV is a link to a folder that does not exist: $(readlink "$VENV")"
elif [[ -L "$VENV" ]]; then
    VENV="$(cd -P "$VENV" && pwd)" # python -m venv makes none through a link
elif [[ -e "$VENV" && ! -d "$VENV" ]]; then
    fail "$VENV is not a folder; set VENV to another place"
fi
STAMP="$VENV/.requirements.sha256"
UNFINISHED="$VENV/.unfinished" # stands while an environment is made from nothing, so that a half-made one is known

if [[ -f "$UNFINISHED" ]]; then
    find "$VENV" -mindepth 1 ! -path "$UNFINISHED" -delete
elif [[ -d "$VENV" && ! -f "$VENV/pyvenv.cfg" && -n "$(ls -A "$VENV")" ]]; then
    fail "$VENV holds files but no Python environment; set VENV to another place"
fi
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    require_python "$PYTHON" "PYTHON=$PYTHON"
    echo "Making the Python environment $VENV ..."
    mkdir -p "$VENV"
    [[ -f "$VENV/pyvenv.cfg" ]] || touch "$UNFINISHED"
    "$PYTHON" -m venv "$VENV" || fail "$PYTHON -m venv failed (on Debian and Ubuntu: apt-get install python3-venv)"
    "$VENV/bin/python" -m pip --version >/dev/null || fail "$VENV has no working pip; delete it and run this again"
    rm -f "$UNFINISHED"
fi
require_python "$VENV/bin/python" "the Python of $VENV"

pip_install() { # shows what pip says on the way only if it fails: warnings of every run tell the user nothing
    local said status=0
    said="$(mktemp)"
    # shellcheck disable=SC2064 # the value of now
    trap "rm -f '$said'" EXIT
    "$VENV/bin/python" -m pip install --quiet "$@" 2>"$said" || status=$?
    ((status == 0)) || cat "$said" >&2
    rm -f "$said"
    return "$status"
}

echo "Installing requirements into $VENV (a few minutes the first time) ..."
rm -f "$STAMP"
pip_install -r "$ROOT/requirements-dev.txt" ||
    fail "pip could not install requirements-dev.txt into $VENV; its message stands above"
mapfile -t broken < <(broken_packages)
if ((${#broken[@]})); then
    echo "Repairing packages that an interrupted installation left incomplete: ${broken[*]}"
    pip_install --force-reinstall --no-deps "${broken[@]}" ||
        fail "pip could not repair ${broken[*]}; delete $VENV and run this again"
fi
requirements_hash "$VENV/bin/python" >"$STAMP"
echo "Python environment $VENV is ready."
