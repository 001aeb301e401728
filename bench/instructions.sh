#!/bin/bash
# Counts the instructions of loading a model and of scoring one document with it, on one thread, and fails if a count is off its
# record by more than 3 %:  bench/instructions.sh [--write]
#
# f32 and bf16 with the default model; int8 with a tiny one, for loading it takes a dozen forward passes in f32, and valgrind
# computes each lane of an FMA in software.
#
# Counts do not depend on what else the machine does, times do. callgrind knows no AVX-512, so this is the AVX2 path: what the
# other sets have in common with it is seen, their own products are not. The counts belong to one compiler, which is recorded.
set -euo pipefail
cd "$(dirname "$0")/.."
record=bench/record/instructions.json
write=no
case "${1:-}" in
    "") [ -f "$record" ] || { echo "instructions.sh: $record is missing; --write makes it" >&2; exit 2; } ;;
    --write) write=yes ;;
    *) echo "usage: bench/instructions.sh [--write]" >&2; exit 2 ;;
esac
command -v valgrind >/dev/null || { echo "instructions.sh: valgrind is not installed; nothing was counted" >&2; exit 2; }

cargo build --quiet --release --locked --example bench_worker
worker=${CARGO_TARGET_DIR:-target}/release/examples/bench_worker
request='{"query": "how long does a hearing aid battery last", "documents": ["A hearing aid worn twelve hours a day empties a size 312 battery in about a week; size 13 lasts up to two weeks."]}'

# Without the receipt, whose pairs would be most of what loading counts.
model=$(mktemp -d)
trap 'rm -r "$model"' EXIT
for file in config.json model.safetensors tokenizer.json tokenizer_config.json; do
    ln -s "$PWD/models/default/$file" "$model/$file"
done

# count MODEL PRECISION RUNS: instructions of a process that loads the model and scores so often
count() {
    if ! { echo "$request"; if [ "$3" -gt 0 ]; then echo "{\"run\": $3}"; fi; } |
        JOINTLY_ISA=avx2 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
            "$worker" "$1" "$2" 1 2>"$model/log" >/dev/null; then
        cat "$model/log" >&2
        exit 1
    fi
    sed -n 's/^==[0-9]*== Collected : //p' "$model/log"
}

counts=()
# measure NAME MODEL PRECISION RUNS
measure() {
    local load all
    load=$(count "$2" "$3" 0)
    all=$(count "$2" "$3" "$4")
    counts+=("load $1 $3=$load" "score $1 $3=$(((all - load) / $4))")
}
measure default "$model" f32 1
measure default "$model" bf16 1
measure tiny-bert testdata/tiny-bert int8 20

python3 - "$record" "$write" "$(rustc --version)" "${counts[@]}" <<'PYTHON'
import json
import sys

TOLERANCE = 0.03
path, write, compiler, *counts = sys.argv[1:]
found = {name: int(count) for name, _, count in (entry.partition("=") for entry in counts)}
if write == "yes":
    with open(path, "w") as file:
        json.dump({"command": "bench/instructions.sh --write", "isa": "avx2", "compiler": compiler, "instructions": found}, file, indent=2)
        file.write("\n")
    sys.exit(0)
with open(path) as file:
    record = json.load(file)
expected = record["instructions"]
if found.keys() != expected.keys():
    sys.exit(f"instructions.sh: {path} has {sorted(expected)}, counted are {sorted(found)}")
if record["compiler"] != compiler:
    print(f"note: recorded with {record['compiler']}, counted with {compiler}")
wrong = 0
for name, count in found.items():
    change = count / expected[name] - 1
    off = abs(change) > TOLERANCE
    wrong += off
    print(f"{name:20} {count:15,} {change:+7.2%}{'  <- more than 3 %' if off else ''}")
if wrong:
    sys.exit("instructions.sh: if the change is meant, run it with --write and commit the record")
PYTHON
