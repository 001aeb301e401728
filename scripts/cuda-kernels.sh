#!/usr/bin/env bash
# Compiles every CUDA kernel as it is compiled on a machine with a device, by NVIDIA's own compiler, without a device.
#
# The compiler is a library, NVRTC, in a package of PyPI, pinned to the release that the oldest driver we know understands; it is
# fetched once, into target/nvrtc. Where it cannot be had (no pip, no network, another processor) the script says how many
# modules were not compiled, and ends well; with JOINTLY_REQUIRE_NVRTC=1 it ends with an error instead.
set -euo pipefail
cd "$(dirname "$0")/.."

package=nvidia-cuda-nvrtc
version=13.0.88
architectures="sm_80 sm_90"
modules=27 # 1 in f32, 13 in each of bf16 and f16; for each architecture

skip() {
    local count=$((modules * $(wc -w <<<"$architectures")))
    printf 'cuda-kernels.sh: skipped: %d modules not compiled: %s\n' "$count" "$*"
    [ "${JOINTLY_REQUIRE_NVRTC:-0}" != 1 ]
    exit
}

folder=$PWD/target/nvrtc-$version
library=$folder/nvidia/cu13/lib
if [ ! -e "$folder/complete" ]; then
    command -v python3 >/dev/null || skip "python3 is missing, whose pip fetches $package"
    rm -rf "$folder"
    python3 -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: --target "$folder" \
        "$package==$version" || skip "pip could not fetch $package==$version"
    touch "$folder/complete"
fi

output=$(LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    cargo run -q --locked -p jointly-cuda --features driver --example compile_kernels -- $architectures)
printf '%s\n' "$output"
expected=$((modules * $(wc -w <<<"$architectures")))
grep -q "^$expected modules compiled, 0 failed$" <<<"$output" || {
    printf 'cuda-kernels.sh: not %d modules were compiled\n' "$expected" >&2
    exit 1
}
