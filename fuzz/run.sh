#!/usr/bin/env bash
# Runs every fuzz target for SECONDS each (60 by default), or only the targets named after it:
#   fuzz/run.sh [SECONDS] [TARGET...]
# `dialect:NAME` is the target `dialect` with that dialect alone; `dialects` is one such run for each of them.
# Needs cargo-fuzz and a C++ compiler. Ends with the status of the first target that finds something.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
targets=("$@")
if [ ${#targets[@]} = 0 ]; then targets=(weights config tokenizer pairs bundle evaluation listwise dialect); fi
if [ "${targets[*]}" = dialects ]; then
  targets=()
  for golden in ../crates/server/testdata/dialects/*.json; do targets+=("dialect:$(basename "$golden" .json)"); done
fi

# The sanitizers are unstable options of rustc. This lets a stable compiler take them.
export RUSTC_BOOTSTRAP=1
# Caches that grow make the leak check run after every case, a hundred times slower than the case itself: it is off.
# A panic that is caught on purpose must not be printed by the million.
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}

# --- seeds -----------------------------------------------------------------------------------------------------------
# A case is `name LF content`, file after file, with the byte 0x1e between them (src/case.rs).
testdata=../testdata
file() { printf '%s\n' "$1"; cat; printf '\x1e'; } # name; content on standard input

seed_weights() {
  local one='{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]},"c.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[32,40]},"__metadata__":{"format":"pt"}}'
  local data='0123456789abcdef0123456789abcdef01234567'
  { printf '%s\037%s' "$one" "$data" | file model.safetensors; } > "$1/single"
  local a='{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' b='{"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
  {
    printf '{"weight_map":{"a":"x.safetensors","b":"y.safetensors"}}' | file model.safetensors.index.json
    printf '%s\03701234567' "$a" | file x.safetensors
    printf '%s\03701234567' "$b" | file y.safetensors
  } > "$1/sharded"
  { printf '{"e":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}\0371234' | file model.safetensors; } > "$1/empty-and-scalar"
  for small in "$testdata"/tiny-*/*_*/model.safetensors; do
    file model.safetensors < "$small" > "$1/$(basename "$(dirname "$small")")-raw"
  done
}

seed_config() {
  local folder name
  for folder in "$testdata"/tiny-*/; do
    {
      basename "$folder" | tr -d '\n' | file fixture
      (cd "$folder" && find . -type f \( -name '*.json' -o -name '*.jinja' \) -size -32k ! -name tokenizer.json ! -name expected.json) |
        LC_ALL=C sort | while read -r name; do file "${name#./}" < "$folder/$name"; done
    } > "$1/$(basename "$folder")"
    { basename "$folder" | tr -d '\n' | file fixture; file config.json < "$folder/config.json"; } > "$1/$(basename "$folder")-config"
  done
}

seed_tokenizer() {
  local folder template
  for folder in "$testdata"/tiny-*/; do
    for template in 0 1 2 3; do
      {
        basename "$folder" | tr -d '\n' | file fixture
        printf '%b' "\\0$template" | file template
        printf 'Which planet is [SEP] </s> red?' | file query
        printf 'Mars is called the Red Planet. caf\xc3\xa9 e\xcc\x81  \xe2\x80\x8b\xe6\x97\xa5\xe6\x9c\xac <|im_end|> and a longer text that goes on for a while, until it ends.' | file document
      } > "$1/$(basename "$folder")-text-$template"
    done
    {
      file tokenizer.json < "$folder/tokenizer.json"
      printf 'which planet' | file query
      printf 'Mars is red. caf\xc3\xa9 [SEP] <|im_end|>' | file document
    } > "$1/$(basename "$folder")-file"
  done
}

seed_pairs() {
  local options
  local jsonl='{"query":"a","document":"b"}\n{"id":1,"query":"c","document":""}\n\n{"query":" ","document":"d"}\n'
  local tsv='a\tb\n\xef\xbb\xbf1\tc\td\r\n\nq\td\tc\te'
  local texts='{"text":"a","id":[1]}\n{"text":"b"}\n'
  for options in 0 1 2 3 4 5 6 7 10 11 12 13; do
    printf '%b' "\\0$options$jsonl" > "$1/jsonl-$options"
    printf '%b' "\\0$options$tsv" > "$1/tsv-$options"
    printf '%b' "\\0$options$texts" > "$1/texts-$options"
  done
  printf '%b' '\02\xef\xbb\xbf{"query":"a","document":"\\ud800"}\n{"query":"a","document":"\\u00e9","query_id":{"a":[]}}\nx\xff\n' > "$1/odd"
}

seed_bundle() {
  local work folder form
  { printf '\002'; printf '{}' | file config.json; printf 'abc' | file 1_Dense/model.safetensors; } > "$1/made"
  { printf '\002'; printf '{"format":1,"model":"m","revision":"r","created_with":"c","files":[{"name":"a.json","size":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}' | file jointly-bundle.json; printf '' | file a.json; } > "$1/with-manifest"
  work=$(mktemp -d)
  printf '{}' > "$work/config.json"
  printf '{"format":1,"model":"m","created_with":"c","files":[{"name":"config.json","size":2,"sha256":"%s"}]}' \
    "$(sha256sum < "$work/config.json" | cut -d' ' -f1)" > "$work/jointly-bundle.json"
  for form in 0 1; do
    { printf '%b' "\\0$form"; tar -C "$work" --format=ustar -cf - jointly-bundle.json config.json; } > "$1/tar-$form"
  done
  rm -r "$work"
}

seed_evaluation() {
  local name
  printf 'q1 Q0 d1 1 2.5 t\nq1 Q0 d2 2 1.5 t\nq2 Q0 d1 1 -1e-3 t\n' > "$1/run"
  printf 'q1 0 d1 1\nq1 0 d2 0\nq2 1 d1 -1\n' > "$1/qrels"
  printf 'query-id\tcorpus-id\tscore\nq1\ta b\t1\nq1\tc\t1\nq2\tc\t0\n' > "$1/tsv"
  printf '{"_id": "a", "title": null, "text": "x"}\n{"_id": 2, "text": "y"}\n' > "$1/corpus"
  printf '{"query_id": "q", "query": "?", "documents": [{"id": "a", "text": "x", "first_stage_score": 1, "label": 1}, {"id": "b", "text": "y", "first_stage_score": 1, "label": null}]}\n' > "$1/groups"
  for name in run qrels tsv corpus groups; do
    gzip -9nc < "$1/$name" > "$1/$name.gz"
  done
  # "q1 Q0 d1 1 2.5 t" in a raw block, then an empty frame.
  printf '\x28\xb5\x2f\xfd\x20\x10\x81\x00\x00q1 Q0 d1 1 2.5 t\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00' > "$1/run.zst"
}

seed_listwise() {
  local method
  for method in 0 1 2 3 4 5; do
    printf '%b' "\05\0$method[2] > [3] > [5] > [1] > [4]" > "$1/ok-$method"
    printf '%b' "\045\0$method[2] > [2] > [9]\x1e1. Document 3\n2. [1]\x1e<think>1</think>{\"order\": [2, 1]}\x1e\x1e[\xd9\xa2]" > "$1/odd-$method"
    printf '%b' "\025\0$method[B] > [A] > [C]\x1eA document\x1e[E]" > "$1/letters-$method"
  done
}

# The bodies of the golden files, or of one of them, each after its path.
seed_dialect() {
  python3 - "$1" "${2:-*}" <<'SEEDS'
import json, pathlib, sys
for golden in sorted(pathlib.Path("../crates/server/testdata/dialects").glob(f"{sys.argv[2]}.json")):
    for n, case in enumerate(json.loads(golden.read_text())["cases"]):
        body = case.get("raw") or json.dumps(case.get("body"))
        path = case["path"] if case["path"].startswith(f"/{golden.stem}/") else f"/{golden.stem}{case['path']}"
        pathlib.Path(sys.argv[1], f"{golden.stem}-{n}").write_text(f"{path}\n{body}")
SEEDS
}

# --- runs ------------------------------------------------------------------------------------------------------------
for name in "${targets[@]}"; do
  target=${name%%:*}
  corpus=corpus/${name/:/-}
  mkdir -p "$corpus" "artifacts/$target"
  seeds=$(mktemp -d)
  unset JOINTLY_FUZZ_DIALECT
  if [ "$name" = "$target" ]; then
    "seed_$target" "$seeds"
  else
    export JOINTLY_FUZZ_DIALECT=${name#*:}
    "seed_$target" "$seeds" "$JOINTLY_FUZZ_DIALECT"
  fi
  case $target in
    pairs | evaluation | listwise) max_len=4096 ;;
    bundle | dialect) max_len=16384 ;;
    weights) max_len=8192 ;;
    *) max_len=32768 ;;
  esac
  printf '\n== %s, %s s\n' "$name" "$seconds"
  cargo fuzz run "$target" "$corpus" "$seeds" -- -max_total_time="$seconds" -max_len="$max_len" -rss_limit_mb=1024 \
    -timeout=10 -detect_leaks=0 -print_final_stats=1
  rm -r "$seeds"
done
printf '\nno findings\n'
