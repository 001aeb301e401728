#!/bin/bash
# Installs the peers from the package registry and writes the models that they and we run: setup.sh FOLDER WORKLOADS [shape...]
# FOLDER gets 8 GB (torch, for the export alone, is most of it). WORKLOADS holds msmarco.jsonl, whose lines but the first calibrate int8.
set -euo pipefail
folder=${1:?setup.sh FOLDER WORKLOADS [shape...]}
workloads=${2:?setup.sh FOLDER WORKLOADS [shape...]}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$workloads/msmarco.jsonl" ] || { echo "setup.sh: $workloads/msmarco.jsonl is missing" >&2; exit 1; }
mkdir -p "$folder"
[ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q -r "$here/requirements.txt"
"$folder/venv/bin/python" "$here/prepare.py" "$folder" "$workloads" "$@"
