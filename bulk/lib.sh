# What the scripts of this folder share: programs, a model, pairs, and processes that end with the script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
programs="${PROGRAMS:-bulk/target/release}"
model="${MODEL:-testdata/tiny-bert}"
work="$(mktemp -d)"
processes=()
kill_now() { # process: with SIGKILL, and without the shell's saying so
    kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}
cleanup() {
    for process in "${processes[@]}"; do kill_now "$process"; done
    rm -rf "$work"
}
trap cleanup EXIT
for program in jointly-sql jointly-scheduler jointly-executor; do
    [ -x "$programs/$program" ] || {
        echo "no $programs/$program: cargo build --release --locked --manifest-path bulk/Cargo.toml, or PROGRAMS names their folder" >&2
        exit 1
    }
done
sql() { "$programs/jointly-sql" --quiet "$@"; }
# Pairs of up to some 60 words, in row groups of 8,192: id, query, document.
make_pairs() { # rows file [first id]
    local first="${3:-1}"
    sql "SELECT value AS id, concat('how old is number ', value / 50) AS query,
             concat('row ', value, ' ', repeat('the bridge was built in 1897 ', value * 7919 % 11)) AS document
         FROM generate_series($first, $((first + $1 - 1)))" -o "$2"
}
wait_for_port() { # host port
    for _ in $(seq 600); do
        if (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "nobody listens at $1:$2" >&2
    exit 1
}
# Whether two files have the same pairs with the same bits.
same() { # file file rows
    local differ
    # JSON has numbers of 64 bits.
    local logits="SELECT id, CAST(logit AS REAL) FROM"
    differ="$(sql "SELECT count(*) FROM ($logits '$1' EXCEPT ALL $logits '$2')" | tail -1)"
    local rows
    rows="$(sql "SELECT count(*) FROM '$1'" | tail -1) $(sql "SELECT count(DISTINCT id) FROM '$1'" | tail -1)"
    [ "$differ" = 0 ] && [ "$rows" = "$3 $3" ] || {
        echo "$1 and $2 differ: $differ rows differ; rows and different ids: $rows, and $3 were expected" >&2
        exit 1
    }
}
