#!/usr/bin/env bash
# Pairs a second of `jointly-sql`, reading Parquet and JSON lines, beside those of `jointly score`: turns interleaved, medians. Needs
# two idle cores.
#   ROWS=8192   pairs      ROUNDS=3   turns      MODEL=default   the model      PROGRAMS=bulk/target/release   where the programs are
#   JOINTLY=target/release/jointly   the command line
MODEL="${MODEL:-default}"
source "$(dirname "$0")/lib.sh"
rows="${ROWS:-8192}"
jointly="${JOINTLY:-target/release/jointly}"
[ -x "$jointly" ] || {
    echo "no $jointly: cargo build --release --locked, or JOINTLY names it" >&2
    exit 1
}
make_pairs "$rows" "$work/pairs.jsonl"
make_pairs "$rows" "$work/pairs.parquet"
took() { # file command...
    local file="$1" started
    shift
    started="$(date +%s%N)"
    "$@"
    echo $((($(date +%s%N) - started) / 1000000)) >>"$file"
}
select="SELECT id, rerank_logit(query, document) AS logit FROM"
for _ in $(seq "${ROUNDS:-3}"); do
    rm -f "$work"/out.*
    took "$work/score.ms" "$jointly" score "$work/pairs.jsonl" --model "$model" --quiet -o "$work/out.score.jsonl"
    took "$work/jsonl.ms" sql "$select '$work/pairs.jsonl'" --model "$model" -o "$work/out.sql.jsonl"
    took "$work/parquet.ms" sql "$select '$work/pairs.parquet'" --model "$model" -o "$work/out.parquet"
done
same "$work/out.sql.jsonl" "$work/out.score.jsonl" "$rows"
same "$work/out.parquet" "$work/out.score.jsonl" "$rows"
median() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }
score="$(median "$work/score.ms")"
echo "$rows pairs, the same bits; jointly score, JSON lines: $score ms, $((rows * 1000 / score)) pairs/s"
for format in jsonl parquet; do
    sql="$(median "$work/$format.ms")"
    echo "jointly-sql, $format: $sql ms, $((rows * 1000 / sql)) pairs/s, $((score * 1000 / sql)) thousandths of the speed of jointly score"
done
