#!/usr/bin/env bash
# The small model, distilled from the large one: OUT/small, half way between FIRST and what training makes of it on labels that the large model has a
# vote in, with receipt and calibration.
#
#   models/train/distil.sh OUT FIRST
#
# OUT: what models/train/large.sh has made, with the large model in OUT/large. FIRST: the small cross-encoder to begin with (models/default).
# What is there already is not made again, and training goes on from its checkpoint. WEB and PAPERS set how many queries the large model reads, 8
# documents of each; STEPS, LOSS and PRECISION the training; DEV a judged pool that is measured on the way; JOINTLY the program. Needs numpy.
# The calibration's questions are kept from this training; FIRST may have learned some, if it was trained on the same sets.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,10p' "$0" | cut -c3- >&2; exit 2; }
first=$(realpath "$2") dev=${DEV:+$(realpath "$DEV")}
here=$(realpath "$(dirname "$0")")
jointly=$(realpath "${JOINTLY:-$here/../../target/release/jointly}")
cd "$1"
. "$here/make.sh"

# label NAME TRAIN QUERIES LENGTH JUDGE…: some queries of a collection, what the judges say of them, and the fit.
label() {
    local name=$1 train=$2 queries=$3 length=$4
    shift 4
    make "few.$name.pools.jsonl" python3 "$here/few.py" "$name.pools.jsonl" --of "$train" --queries "$queries" --documents 8 --seed 41 --out OUTPUT
    make "few.$name.pairs.jsonl" "$jointly" zelo sample "few.$name.pools.jsonl" --k 6 --across 6 --seed 41 -o OUTPUT
    local votes=()
    for judge in "$@"; do
        case $judge in
            bm25) make "few.$name.votes.bm25.jsonl" python3 "$here/lexical.py" --pairs "few.$name.pairs.jsonl" --run "$name.bm25.run" --out OUTPUT ;;
            *) make "few.$name.votes.${judge%%=*}.jsonl" "$jointly" zelo vote "few.$name.pools.jsonl" "few.$name.pairs.jsonl" -o OUTPUT \
                --judge "$judge" --precision int8 --max-length "$length" ;;
        esac
        votes+=(--votes "few.$name.votes.${judge%%=*}.jsonl")
    done
    make "few.$name.fitted.jsonl" "$jointly" zelo fit "few.$name.pools.jsonl" "${votes[@]}" --level 1 -o OUTPUT --json "few.$name.fit.json"
}
label web web.train.jsonl "${WEB:-1500}" 128 teacher=large labels vectors=index:web.index
label papers papers.fitted.jsonl "${PAPERS:-450}" 384 teacher=large labels bm25

[ -e small.run/final ] || "$jointly" train "$first" --data few.web.fitted.jsonl --data few.papers.fitted.jsonl --data contrast.groups.jsonl=0.03 -o small.run \
    --loss "${LOSS:-kl+0.2*mse}" --label-scale 3 --queries 16 --documents 8 --steps "${STEPS:-80}" --schedule linear --warmup 0.05 --lr 6e-5 --freeze bert.embeddings. \
    --max-length 256 --precision "${PRECISION:-bf16}" --weights f32 --seed 41 ${dev:+--dev "$dev"}
make small python3 "$here/average.py" --first "$first" --second small.run/final --share 0.5 --out OUTPUT
[ -e small/receipt.json ] || "$jointly" verify small --write
[ -e small/calibration.json ] || "$jointly" calibrate asked.groups.jsonl --model small --precision int8
echo "$PWD/small"
