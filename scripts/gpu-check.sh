#!/usr/bin/env bash
# Everything that can only be seen on a GPU, in one run and one table.
#
#   scripts/gpu-check.sh pack         here: builds the programs into .gpu/ (ignored by git), 10 MB compressed
#   scripts/gpu-check.sh run [OUT]    there, in a copy of this folder with .gpu/: parity, batch invariance, speed beside peers
#
# The machine needs an NVIDIA driver of CUDA 12 or 13, a Python with torch (which brings libcublasLt and libnvrtc),
# transformers and sentence-transformers, 16 GB of disk in $TMPDIR and 40 GB of GPU memory for the model in the shape of
# Qwen3-4B; without the packages the peers' rows are counted as skipped. It needs no Rust and no network. GPU_CHECK_MINUTES
# (default 8) bounds the run: what does not fit is counted as skipped, never left out in silence.
#
# Of this repository `run` reads scripts/, bench/gpu/ and testdata/ alone.
set -euo pipefail
cd "$(dirname "$0")/.."

pack() {
    grep -qx '/.gpu/' .git/info/exclude 2>/dev/null || echo '/.gpu/' >>"$(git rev-parse --git-path info/exclude)"
    mkdir -p .gpu
    cargo build --release --locked -p jointly-cli --no-default-features --features cuda
    cargo build --release --locked -p jointly --no-default-features --features cuda --example device_check
    local target=${CARGO_TARGET_DIR:-target}
    local program
    for program in "$target/release/jointly" "$target/release/examples/device_check"; do
        strip -o ".gpu/$(basename "$program")" "$program"
        xz -9e -f ".gpu/$(basename "$program")"
    done
    git rev-parse HEAD >.gpu/commit
    ls -l .gpu
}

run() {
    local out=${1:-${OUT:-gpu-check}}
    mkdir -p "$out"
    local programs
    programs=$(mktemp -d)
    for program in jointly device_check; do
        python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' \
            ".gpu/$program.xz" "$programs/$program"
        chmod +x "$programs/$program"
    done
    # CUDA's libraries as Python packages have them, if the machine has no toolkit; and the driver where containers put it.
    local libraries
    libraries=$(python3 -c '
import glob, site, sysconfig
roots = {sysconfig.get_paths()["purelib"], *site.getsitepackages()}
print(":".join(sorted({path for root in roots for path in glob.glob(root + "/nvidia/*/lib")})))')
    export LD_LIBRARY_PATH=$libraries:/usr/local/nvidia/lib64:/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export JOINTLY_PACKED_CACHE=$programs/cache
    { cat .gpu/commit; nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; } | tee "$out/machine.txt"
    PYTHONUNBUFFERED=1 python3 bench/gpu/check.py --programs "$programs" --out "$out" --minutes "${GPU_CHECK_MINUTES:-8}" \
        2>"$out/stderr.txt" | tee "$out/table.txt"
}

case ${1:-} in
pack) pack ;;
run) shift; run "$@" ;;
*) sed -n '2,12p' "$0" | cut -c3-; exit 2 ;;
esac
