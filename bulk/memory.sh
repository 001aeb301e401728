#!/usr/bin/env bash
# Peak memory of large jobs in one process: as many rows as asked for, and a tenth of them.
#   ROWS=5000000   pairs     MODEL=testdata/tiny-bert   the model     PROGRAMS=bulk/target/release   where the programs are
source "$(dirname "$0")/lib.sh"
rows="${ROWS:-5000000}"
measure() { # what rows arguments...
    local what="$1" count="$2"
    shift 2
    # The largest resident set, in KiB, as the system saw it.
    python3 - "$what" "$count" "$programs/jointly-sql" --quiet "$@" <<'PYTHON'
import resource, subprocess, sys, time
what, rows, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
started = time.time()
subprocess.run(command, check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(f"{what}, {rows} rows: peak {peak} MiB, {time.time() - started:.0f} s", flush=True)
PYTHON
}
for count in $((rows / 10)) "$rows"; do
    make_pairs "$count" "$work/pairs.parquet"
    query="SELECT id, rerank_logit(query, document) AS logit FROM '$work/pairs.parquet'"
    measure "in order" "$count" "$query" --model "$model" -o "$work/out.parquet" --force
    measure "sorted" "$count" "$query ORDER BY logit DESC" --model "$model" --memory 64 -o "$work/out.parquet" --force
    rm "$work/pairs.parquet"
done
