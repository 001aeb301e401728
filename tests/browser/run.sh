#!/usr/bin/env bash
# Drives the playground page of a built binary in a headless browser. Needs Debian's chromium (apt-get install chromium)
# and Python; makes its virtual environment once. Without either it fails.
#
#   tests/browser/run.sh [VENV] [PYTEST ARGUMENT...]      JOINTLY_BIN: the binary [target/debug/jointly]
#   JOINTLY_URL: a server that runs already, in place of the binary; JOINTLY_SHOTS: a folder for pictures of each width
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-target/venv-browser}
shift || true
command -v "${CHROMIUM:-chromium}" >/dev/null || { echo "no chromium: apt-get install chromium" >&2; exit 1; }
[ -x "$venv/bin/pytest" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q -r tests/browser/requirements.txt; }
exec "$venv/bin/pytest" -q -p no:cacheprovider tests/browser "$@"
