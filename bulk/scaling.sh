#!/usr/bin/env bash
# Two executors, each in a network namespace of its own and on a core of its own, against one of them. Needs root, iproute2 and
# two cores with nothing else to do.
#   ROWS=8192   pairs      MODEL=default   the model      PROGRAMS=bulk/target/release   where the programs are
MODEL="${MODEL:-default}"
source "$(dirname "$0")/lib.sh"
rows="${ROWS:-8192}"
# JSON lines are cut into as many pieces as are asked for.
make_pairs "$rows" "$work/pairs.jsonl"
# Others, to warm up with: an executor remembers scores.
make_pairs 512 "$work/warm.jsonl" 10000001

# A bridge here, and an executor's end of a wire in each namespace.
bridge="jointly$$"
namespaces=()
leave() {
    cleanup
    for namespace in "${namespaces[@]}"; do ip netns delete "$namespace" || true; done
    ip link delete "$bridge" 2>/dev/null || true
}
trap leave EXIT
ip link add "${bridge:0:15}" type bridge
bridge="${bridge:0:15}"
ip address add 10.213.0.1/24 dev "$bridge"
ip link set "$bridge" up
for n in 1 2; do
    namespace="jointly-executor-$n-$$"
    ip netns add "$namespace"
    namespaces+=("$namespace")
    ip link add "jv$n-$$" type veth peer name eth0 netns "$namespace"
    ip link set "jv$n-$$" master "$bridge" up
    ip -n "$namespace" address add "10.213.0.1$n/24" dev eth0
    ip -n "$namespace" link set eth0 up
    ip -n "$namespace" link set lo up
done

"$programs/jointly-scheduler" --bind 10.213.0.1 --port 50150 --quiet 2>"$work/scheduler.log" & processes+=($!)
wait_for_port 10.213.0.1 50150
executor() { # number
    ip netns exec "${namespaces[$1 - 1]}" taskset -c "$(($1 - 1))" "$programs/jointly-executor" \
        --scheduler 10.213.0.1:50150 --bind "10.213.0.1$1" --model "$model" --threads 1 2>"$work/executor$1.log" & processes+=($!)
    wait_for_port "10.213.0.1$1" 50051
}
job() { # pairs output: seconds
    local started
    started="$(date +%s.%N)"
    sql "SELECT id, rerank_logit(query, document) AS logit FROM '$work/$1.jsonl'" --model "$model" \
        --scheduler 10.213.0.1:50150 -o "$work/$2.parquet" --force
    echo "$(date +%s.%N) - $started" | bc
}
executor 1
job warm warm >/dev/null
one="$(job pairs one)"
kill_now "${processes[-1]}"
executor 1
executor 2
job warm warm >/dev/null
two="$(job pairs two)"
same "$work/two.parquet" "$work/one.parquet" "$rows"
echo "$rows pairs: one executor $one s, two executors $two s, ratio $(echo "scale=3; $one / $two" | bc)"
