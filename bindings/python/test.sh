#!/usr/bin/env bash
# Builds the wheel, installs it in an environment of its own, checks its types and stubs, and runs its tests. Needs Rust and
# Python 3.10 or later (with venv), and the registries of crates and of Python packages.
#   PYTHON=python3.12   another Python        PROFILE=dev   a faster build, for working on it
#   CLUSTERS=1          also tests/clusters: Ray with two nodes and Spark with two executors, on this machine; needs Java 17 or later
#   OTHERS=1            also tests/others, with sentence-transformers, MTEB, LangChain and LlamaIndex: some gigabytes
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
profile="${PROFILE:-release}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "$python is older than 3.10; PYTHON names another" >&2
    exit 1
fi
target="${CARGO_TARGET_DIR:-../../target}"
mkdir -p "$target/python"
target="$(cd "$target" && pwd)"
# This folder is a workspace of its own, which would build in a folder of its own.
export CARGO_TARGET_DIR="$target"
version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
venv="$target/python/venv-$version"
wheels="$target/python/wheels-$profile"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements-test.txt
rm -rf "$wheels"
"$venv/bin/maturin" build --quiet --locked --profile "$profile" --interpreter "$venv/bin/python" --out "$wheels"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheels"/*.whl
"$venv/bin/python" -m mypy
# Outside of this folder, so that what is installed is what is looked at.
(cd "$wheels" && "$venv/bin/python" -m mypy.stubtest jointly._native)
"$venv/bin/python" -m pytest --quiet tests --ignore tests/others --ignore tests/clusters
if [ "${OTHERS:-}" = 1 ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/others/requirements.txt
    "$venv/bin/python" -m pytest --quiet tests/others
fi
if [ "${CLUSTERS:-}" = 1 ]; then
    command -v java >/dev/null || { echo "CLUSTERS=1 needs Java 17 or later, for Spark" >&2; exit 1; }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/clusters/requirements.txt
    "$venv/bin/python" -m pytest --quiet tests/clusters
fi
