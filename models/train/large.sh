#!/usr/bin/env bash
# The large model, from the data to a calibrated folder: OUT/large, a cross-encoder on all-mpnet-base-v2.
#
#   models/train/large.sh TRAIN MPNET MINILM OUT
#
# TRAIN, MPNET and MINILM: as models/train/README.md says under "The fourth version". What is there already is not made again, and training goes
# on from its checkpoint: the same command goes on after a kill. STEPS sets the length of training, PRECISION what it multiplies in
# (f32 is faster on an Intel processor without AMX), DEV a judged pool that is measured on the way, JOINTLY the program.
set -euo pipefail
[ $# = 4 ] || { sed -n '2,8p' "$0" | cut -c3- >&2; exit 2; }
train=$(realpath "$1") mpnet=$(realpath "$2") minilm=$(realpath "$3") dev=${DEV:+$(realpath "$DEV")}
here=$(realpath "$(dirname "$0")")
jointly=$(realpath "${JOINTLY:-$here/../../target/release/jointly}")
mkdir -p "$4" && cd "$4"

. "$here/make.sh"

collect() { make "$1" python3 "$here/collection.py" --data "$train" --seed 33 --out OUTPUT "${@:2}"; }
collect web --sets nq,qed,boolq,squad,medquad --whole-articles --limit title=2000 --limit squad=5000 --limit topic=1500 --limit medquad=3000
collect papers --sets bioasq,pubmedqa,covid-qa,covid-articles --lengths 130,180,230
make contrast.groups.jsonl python3 "$here/contrast.py" --collection web --out OUTPUT

make web.index "$jointly" index web -o OUTPUT --dense "$mpnet" --precision int8 --max-length 128
make papers.index "$jointly" index papers -o OUTPUT --dense "$minilm" --precision int8 --max-length 384

# label COLLECTION DENSE BM25 JUDGE VOTES…: candidates, the judge's votes and those of what is known, and the fit.
label() {
    local name=$1 dense=$2 bm25=$3 judge=$4 length=$5
    make "$name.dense.run" "$jointly" retrieve "$name.index" --queries "$name/" --by dense -k 60 -o OUTPUT
    make "$name.bm25.run" "$jointly" retrieve "$name.index" --queries "$name/" --by bm25 -k 100 -o OUTPUT
    make "$name.pools.jsonl" "$jointly" mine "$name/" --run "$name.dense.run=$dense" --run "$name.bm25.run=$bm25" --random 1 --seed 33 -o OUTPUT
    make "$name.pairs.jsonl" "$jointly" zelo sample "$name.pools.jsonl" --k 8 --across 8 --seed 33 -o OUTPUT
    make "$name.votes.$judge.jsonl" "$jointly" zelo vote "$name.pools.jsonl" "$name.pairs.jsonl" -o OUTPUT --judge "$judge=index:$name.index" \
        --precision int8 --max-length "$length"
    make "$name.votes.labels.jsonl" "$jointly" zelo vote "$name.pools.jsonl" "$name.pairs.jsonl" -o OUTPUT --judge labels
    local votes=(--votes "$name.votes.$judge.jsonl" --votes "$name.votes.labels.jsonl")
    if [ "$name" = papers ]; then
        make papers.votes.bm25.jsonl python3 "$here/lexical.py" --pairs papers.pairs.jsonl --run papers.bm25.run --out OUTPUT
        votes+=(--votes papers.votes.bm25.jsonl)
    fi
    make "$name.fitted.jsonl" "$jointly" zelo fit "$name.pools.jsonl" "${votes[@]}" --level 1 -o OUTPUT --json "$name.fit.json"
}
label web 8 6 large 128
label papers 5 6 small 384

# Questions that people asked, kept from training: for the calibration.
make asked.groups.jsonl python3 "$here/holdout.py" web.fitted.jsonl --pools web.pools.jsonl --queries 1600 --of qed-q --of boolq-q --seed 30 \
    --train web.train.jsonl --held OUTPUT

# The lower half stays as it is: with the time there is, the rest of the model sees half as many pairs again.
frozen=(--freeze mpnet.embeddings. --freeze mpnet.encoder.relative_attention_bias.)
for layer in 0 1 2 3 4 5; do frozen+=(--freeze "mpnet.encoder.layer.$layer."); done
[ -e run/final ] || "$jointly" train "$mpnet" --data web.train.jsonl --data papers.fitted.jsonl=0.5 --data contrast.groups.jsonl=0.2 -o run \
    --loss kl+0.2*mse --label-scale 3 --queries 8 --documents 8 --steps "${STEPS:-560}" --schedule linear --warmup 0.06 --lr 6e-5 "${frozen[@]}" \
    --max-length 192 --precision "${PRECISION:-bf16}" --seed 40 ${dev:+--dev "$dev" --dev-every 200}
make large cp -r run/final OUTPUT
[ -e large/receipt.json ] || "$jointly" verify large --write
[ -e large/calibration.json ] || "$jointly" calibrate asked.groups.jsonl --model large --precision int8
echo "$PWD/large"
