#!/bin/sh
# A virtual environment with exactly what requirements.lock says: `envs/install.sh FOLDER PYTHON`.
# uv installs in two minutes what takes pip four; pip is the way out where uv finds no registry.
set -eu
place=$1
lock=$(dirname "$0")/../requirements.lock
"$2" -m venv "$place"
sed -n '/^uv==/,/# via/p' "$lock" >"$place/uv.txt"
"$place/bin/pip" install --quiet --require-hashes -r "$place/uv.txt"
"$place/bin/uv" pip sync --quiet --python "$place/bin/python" --compile-bytecode --require-hashes "$lock" ||
    "$place/bin/pip" install --quiet --require-hashes -r "$lock"
