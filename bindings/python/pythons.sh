#!/usr/bin/env bash
# Installs the wheel that test.sh built in the Pythons of Debian 12 and 13 (3.11 and 3.13), each in a bare system of its own
# that has no Rust, and runs the tests there. Needs root, debootstrap, and the registries of Debian and of Python packages; it runs
# on Debian 12 or a system with an older C library, for a wheel asks for the one that it was built with.
#   bindings/python/pythons.sh [SUITE...]        PROFILE: the one of test.sh [release]
set -euo pipefail
cd "$(dirname "$0")"
profile=${PROFILE:-release}
# As test.sh reads it, and Cargo's name for its folder.
target=$(realpath "${CARGO_TARGET_DIR:-../../target}")
program="$target/${profile/#dev/debug}/jointly"
cd ../..
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
command -v debootstrap >/dev/null || { echo "no debootstrap: apt-get install debootstrap" >&2; exit 1; }
wheels=("$target/python/wheels-$profile"/*.whl)
[ -f "${wheels[0]}" ] || { echo "no wheel in $target/python: bindings/python/test.sh builds one" >&2; exit 1; }
[ -x "$program" ] || { echo "no $program, whose scores have to be the module's: cargo build builds it" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'umount -q "$scratch"/*/proc || true; rm -rf --one-file-system "$scratch"' EXIT
for suite in "${suites[@]}"; do
    system="$scratch/$suite"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$system" >"$scratch/log" ||
        { tail "$scratch/log" >&2; exit 1; }
    mount -t proc proc "$system/proc"
    # This machine's way to the registry.
    cp -L /etc/resolv.conf "$system/etc/resolv.conf"
    cp -L /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/ca-certificates.crt"
    mkdir -p "$system/jointly/bindings/python" "$system/jointly/models" "$system/jointly/examples"
    cp -r models/default "$system/jointly/models/"
    cp -r examples/python "$system/jointly/examples/"
    cp -r bindings/python/tests bindings/python/pyproject.toml bindings/python/requirements-test.txt "${wheels[0]}" "$system/jointly/bindings/python/"
    # The command line, whose scores have to be the module's.
    install -D "$program" "$system/jointly/target/release/jointly"
    printf '\n== %s: ' "$suite"
    chroot "$system" python3 --version
    chroot "$system" env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} sh -euc '
        cd /jointly/bindings/python
        python3 -m venv /venv
        grep -v -e maturin -e mypy requirements-test.txt >requirements.txt
        /venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: *.whl --requirement requirements.txt
        /venv/bin/python -m pytest --quiet tests --ignore tests/others --ignore tests/clusters'
    umount "$system/proc"
done
