#!/usr/bin/env bash
# The kernels' lints and suite on AArch64, emulated: once with every instruction set, then on processors that lack some, which
# must be left out there. Emulation says nothing about speed.
#
# Installs what is missing: a cross linker and QEMU by apt-get; Rust's standard library for the target by rustup or, where
# rustup has no network, the whole compiler from Debian, into target/aarch64-rust. Ends with an error if one cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
fail() { printf 'aarch64.sh: %s\n' "$*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*"; "$@"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

need() { # command, packages: installs them if there is no such command
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || fail "$1 is missing, and apt-get to install it (Debian: ${*:2})"
    step as_root apt-get update -q
    step as_root apt-get install -y -q --no-install-recommends "${@:2}"
    command -v "$1" >/dev/null || fail "$1 is still missing after installing ${*:2}"
}

# Rust from Debian, unpacked into a folder of its own: nothing else on the machine changes.
debian_rust() {
    local folder=$PWD/target/aarch64-rust
    root=$folder/root/usr
    if [ ! -e "$folder/complete" ]; then
        command -v apt-get >/dev/null || fail "no standard library for $target: run 'rustup target add $target'"
        rm -rf "$folder"
        mkdir -p "$folder"/{lists,cache,packages,root}
        # Both architectures, but only for the lists that are kept here.
        local apt=(-q -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache"
            -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root)
        step apt-get "${apt[@]}" update
        local version library llvm
        version=$(apt-cache "${apt[@]}" policy rustc-web | awk '/Candidate:/ { print $2 }')
        [ -n "$version" ] || fail "neither rustup nor apt-get has a Rust compiler with $target"
        library=libstd-rust-web-$(cut -d. -f1,2 <<<"$version")
        llvm=$(apt-cache "${apt[@]}" show "$library=$version" | grep -oE 'libllvm[0-9]+' | sort -u)
        local packages=("rustc-web=$version" "rust-web-clippy=$version" "$library=$version" "$llvm"
            "libstd-rust-web-dev=$version" "libstd-rust-web-dev:arm64=$version")
        (cd "$folder/packages" && step apt-get "${apt[@]}" download "${packages[@]}")
        for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/root"; done
        touch "$folder/complete"
    fi
    export RUSTC=$root/bin/rustc LD_LIBRARY_PATH=$root/lib/$(uname -m)-linux-gnu
}

need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
need qemu-aarch64 qemu-user

root=
has_target() { [ -n "$(ls "$(rustc --print target-libdir --target $target)"/libstd-*.rlib 2>/dev/null)" ]; }
has_target || { command -v rustup >/dev/null && step timeout 60 rustup target add $target && has_target; } || debian_rust
clippy=(cargo clippy)
[ -z "$root" ] || clippy=("$root/bin/cargo-clippy" clippy)
step "${RUSTC:-rustc}" --version

libc=$(realpath "$(aarch64-linux-gnu-gcc -print-file-name=libc.so.6)")
emulator="qemu-aarch64 -L $(dirname "$(dirname "$libc")")"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# Builds of two compilers do not mix.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/aarch64

step "${clippy[@]}" --locked --target $target -p jointly-kernels --all-targets -- -D warnings

log=$(mktemp)
trap 'rm -f "$log"' EXIT
suite() { # processor, instruction sets it has, the line of the suite on those that it has not
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -cpu $1" JOINTLY_REQUIRE_ISA=$2
    step cargo test --release --locked --target $target -p jointly-kernels --lib 2>&1 | tee "$log"
    grep -q "instruction sets skipped: $3\$" "$log" || fail "$1: not the line 'instruction sets skipped: $3'"
}
suite max neonbf16,neondot,neon "0 "
suite cortex-a76 neondot,neon "1 neonbf16"
suite cortex-a57 neon "2 neonbf16 neondot"
printf '\naarch64.sh: all passed\n'
