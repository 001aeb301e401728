#!/usr/bin/env bash
# Kills an executor in the middle of a job, at other times of it and as its output is fetched, and compares the output with that of one process,
# bit for bit.
#   ROWS=200000   pairs      MODEL=testdata/tiny-bert   the model      PROGRAMS=bulk/target/release   where the programs are
source "$(dirname "$0")/lib.sh"
rows="${ROWS:-200000}"
make_pairs "$rows" "$work/pairs.parquet"
query="SELECT id, rerank_logit(query, document) AS logit FROM '$work/pairs.parquet'"
sql "$query" --model "$model" -o "$work/alone.parquet"

"$programs/jointly-scheduler" --port 50150 --executor-timeout 6 --quiet 2>"$work/scheduler.log" & processes+=($!)
wait_for_port 127.0.0.1 50150
executor() { # number: its process is $executor
    "$programs/jointly-executor" --scheduler 127.0.0.1:50150 --port "5015$1" --model "$model" --threads 1 \
        --work-folder "$work/executor$1" 2>"$work/executor$1.log" & executor=$!
    processes+=("$executor")
    wait_for_port 127.0.0.1 "5015$1"
}
executor 2
executor 1
# A function in the background would be a shell of its own, and a kill would not reach the program.
"$programs/jointly-sql" --quiet "$query" --model "$model" --scheduler 127.0.0.1:50150 -o "$work/cluster.parquet" & job=$!
processes+=("$job")
# It has done some of the work, which is lost with it.
until [ "$(find "$work/executor1" -type f | wc -l)" -gt 2 ]; do
    kill -0 "$job" 2>/dev/null || { echo "the job ended before an executor could be killed" >&2; exit 1; }
    sleep 0.05
done
kill_now "$executor"
done_by_one="$(find "$work/executor1" -type f | wc -l)"
kill -0 "$job" 2>/dev/null || { echo "the job ended as an executor was killed" >&2; exit 1; }
wait "$job"
same "$work/cluster.parquet" "$work/alone.parquet" "$rows"
echo "$rows pairs, an executor killed when it had written $done_by_one files: every pair once, bits as in one process"

# At ten times of a job, and when the first rows of its output have come. What was done and not yet fetched is lost, and the query run once more.
start_job() {
    "$programs/jointly-sql" --quiet "$query" --model "$model" --scheduler 127.0.0.1:50150 -o "$work/cluster.parquet" --force \
        2>"$work/job.log" & job=$!
    processes+=("$job")
}
check_job() { # when
    wait "$job" || { cat "$work/job.log" >&2; exit 1; }
    same "$work/cluster.parquet" "$work/alone.parquet" "$rows"
    echo "$rows pairs, an executor killed $1: every pair once, bits as in one process; runs: $((1 + $(grep -c 'once more' "$work/job.log")))"
}
executor 3
started="$EPOCHREALTIME"
start_job
wait "$job"
took="$(awk "BEGIN { print $EPOCHREALTIME - $started }")"
for tenth in 1 2 3 4 5 6 7 8 9 10; do
    start_job
    sleep "$(awk "BEGIN { print $took * $tenth / 10 }")"
    kill_now "$executor"
    check_job "after $tenth tenths of $took s"
    executor 3
done
start_job
until [ -n "$(find "$work" -maxdepth 1 -name ".cluster.parquet*.partial" -size +0)" ]; do
    kill -0 "$job" 2>/dev/null || { echo "the job ended before an executor could be killed" >&2; exit 1; }
    sleep 0.01
done
kill -STOP "$job"
kill_now "$executor"
kill -CONT "$job"
check_job "as its output was fetched"
grep -q 'once more' "$work/job.log" || { echo "nothing was lost: the output had been fetched" >&2; exit 1; }

# The same for one process that is killed and goes on.
"$programs/jointly-sql" score "$work/pairs.parquet" --quiet --model "$model" -o "$work/score.parquet" & job=$!
processes+=("$job")
until [ -e "$work/score.parquet.partial/00000010.parquet" ]; do
    kill -0 "$job" 2>/dev/null || { echo "scoring ended before it could be killed" >&2; exit 1; }
    sleep 0.02
done
kill_now "$job"
left="$(find "$work/score.parquet.partial" -name '0*.parquet' | wc -l)"
sql score "$work/pairs.parquet" --model "$model" -o "$work/score.parquet"
same "$work/score.parquet" "$work/alone.parquet" "$rows"
echo "$rows pairs, scoring killed after $left parts and gone on: every pair once, bits as in one process"
