#!/usr/bin/env bash
# Runs what this folder describes, with a program that was built before: the image under podman, read-only and without
# capabilities; the pod of Kubernetes' Deployment under podman, which has no cluster; the unit under a systemd of its own, in a container. Needs root, podman and debootstrap (Debian), and a Debian
# mirror to make the base; what is missing fails.
#
#   JOINTLY_BIN=target/release/jointly deploy/try.sh
set -euo pipefail
cd "$(dirname "$0")/.."
program=${JOINTLY_BIN:-target/release/jointly}
base=localhost/jointly-try-base
for tool in podman debootstrap curl; do
    command -v $tool >/dev/null || { echo "no $tool: apt-get install podman debootstrap curl" >&2; exit 1; }
done
[ -x "$program" ] || { echo "$program is not there: cargo build --release, or name it in JOINTLY_BIN" >&2; exit 1; }
# A runtime of another name: PODMAN_RUNTIME=runc.
podman() { command podman ${PODMAN_RUNTIME:+--runtime "$PODMAN_RUNTIME"} "$@"; }
scratch=$(mktemp -d)
remove() {
    local name
    for name in jointly-try-image jointly-try-unit; do podman rm --force --time 0 --ignore $name >/dev/null 2>&1 || true; done
    podman pod rm --force --time 0 --ignore jointly-try-pod-0 >/dev/null 2>&1 || true
    podman volume rm --force jointly-try jointly-try-cache >/dev/null 2>&1 || true
}
trap 'remove; rm -rf "$scratch"' EXIT
remove
# Podman asks for more than some machines give.
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096)

say() { printf '   %s\n' "$*"; }
fail() { printf 'failed: %s\n' "$*" >&2; exit 1; }
until_true() { # seconds, what is waited for, command
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "$what"
        sleep 0.2
    done
    say "$what"
}
ask() { # more arguments of curl
    curl -sf -m 30 "$@" -H 'content-type: application/json' \
        -d '{"query":"battery life","documents":["A battery lasts ten days.","Rain."],"top_n":1}' | grep -q '"index":0'
}

echo '== base'
if ! podman image exists $base; then
    debootstrap --variant=minbase --include=systemd,systemd-sysv bookworm "$scratch/base" >/dev/null
    tar -C "$scratch/base" -c . | podman import --quiet - $base >/dev/null
fi

curl -s -m 2 http://127.0.0.1:8787/livez >/dev/null && fail 'something else answers at port 8787'

echo '== image'
# The build stage makes the program that is given here.
sed -e '/^FROM ${RUST}/,/^RUN/d' -e 's|--from=build \(.*\)/out/jointly|\1jointly|' deploy/container/Containerfile > "$scratch/Containerfile"
mkdir -p "$scratch/context/deploy/container"
cp "$program" "$scratch/context/jointly"
cp deploy/container/jointly.toml "$scratch/context/deploy/container/"
podman build --quiet --build-arg BASE=$base -f "$scratch/Containerfile" -t jointly-try "$scratch/context" >/dev/null
podman run -d --name jointly-try-image --network host "${limits[@]}" --read-only --cap-drop=all --security-opt=no-new-privileges jointly-try >/dev/null
until_true 60 'it is ready' curl -sf http://127.0.0.1:8787/readyz
ask http://127.0.0.1:8787/jointly/v1/rerank || fail 'it does not answer'
say 'it answers'
user=$(podman inspect -f '{{.Config.User}}' jointly-try-image)
pid=$(podman inspect -f '{{.State.Pid}}' jointly-try-image)
grep -q "^Uid:	${user%%:*}	" "/proc/$pid/status" && [ "${user%%:*}" != 0 ] || fail 'it runs as root'
grep -q '^CapBnd:	0000000000000000' "/proc/$pid/status" || fail 'it may have capabilities'
say "its user is ${user%%:*}, without capabilities"
podman stop -t 60 jointly-try-image >/dev/null
[ "$(podman inspect -f '{{.State.ExitCode}}' jointly-try-image)" = 0 ] || fail 'SIGTERM does not end it in order'
say 'SIGTERM ends it in order'

echo '== pod'
# Of the Deployment one replica, with its ConfigMap, volumes, user and limits. Podman's probes know no named ports and need curl in the
# image: they are asked from here.
probes=$(grep -o 'path: /[a-z]*z$' deploy/kubernetes/deployment.yaml | cut -d' ' -f2)
[ "$(wc -l <<< "$probes")" = 3 ] || fail 'not three probes'
# Names of its own, so that nobody's volumes go with it.
own_names='s/name: jointly$/name: jointly-try/; s/name: cache$/name: jointly-try-cache/'
sed -e "$own_names" -e 's|image: jointly:.*|image: localhost/jointly-try:latest|' -e 's/replicas: 2/replicas: 1/' \
    -e 's/^\( *\)containerPort: 8787$/&\n\1hostPort: 8787/' -e '/Probe:$/,/failureThreshold:/d' \
    deploy/kubernetes/deployment.yaml > "$scratch/deployment.yaml"
sed -e "$own_names" deploy/kubernetes/config.yaml > "$scratch/config.yaml"
printf '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n' > "$scratch/containers.conf"
CONTAINERS_CONF="$scratch/containers.conf" podman kube play --configmap "$scratch/config.yaml" "$scratch/deployment.yaml" >/dev/null
for probe in $probes; do until_true 60 "$probe says yes" curl -sf "http://127.0.0.1:8787$probe"; done
ask http://127.0.0.1:8787/jointly/v1/rerank || fail 'it does not answer'
pid=$(podman inspect -f '{{.State.Pid}}' jointly-try-pod-0-jointly-try)
grep -q '^Uid:	65532' "/proc/$pid/status" && grep -q '^CapBnd:	0000000000000000' "/proc/$pid/status" && grep -q '^NoNewPrivs:	1' "/proc/$pid/status" ||
    fail 'it has more rights than the file gives'
[ "$(podman inspect -f '{{.HostConfig.ReadonlyRootfs}}' jointly-try-pod-0-jointly-try)" = true ] || fail 'its root can be written'
ls /proc/"$pid"/root/cache | grep -q . || fail 'it has not kept its converted weights'
say 'it answers, with the rights of the file and its weights in its cache'
began=$SECONDS
podman kill --signal TERM jointly-try-pod-0-jointly-try >/dev/null
until_true 60 'SIGTERM ends it' test ! -e "/proc/$pid"
[ $((SECONDS - began)) -ge 4 ] || fail 'it does not wait for the balancer (drain.delay)'
remove

echo '== unit'
podman run -d --name jointly-try-unit --privileged --systemd=always --network host "${limits[@]}" \
    -v "$(realpath "$program")":/usr/local/bin/jointly:ro -v "$PWD/deploy/systemd/jointly.toml":/etc/jointly/jointly.toml:ro \
    -v "$PWD/deploy/systemd/jointly.service":/etc/systemd/system/jointly.service:ro $base /sbin/init >/dev/null
inside() { podman exec jointly-try-unit "$@"; }
active() { [ "$(inside systemctl show -P ActiveState jointly)" = active ] && curl -sf http://127.0.0.1:8787/readyz; }
main_pid() { inside systemctl show -P MainPID jointly; }
until_true 60 'systemd is up' inside systemctl list-units
inside systemctl daemon-reload
inside systemctl start jointly || { inside journalctl -u jointly --no-pager | tail -n 20 >&2; fail 'it does not start'; }
until_true 60 'it is ready' active
ask http://127.0.0.1:8787/jointly/v1/rerank || fail 'it does not answer'
socket=/proc/$(podman inspect -f '{{.State.Pid}}' jointly-try-unit)/root/run/jointly/jointly.sock
ask --unix-socket "$socket" http://localhost/jointly/v1/rerank || fail 'it does not answer on its socket'
say 'it answers on TCP and on its socket'
user=$(inside stat -c %u "/proc/$(main_pid)")
[ "$user" != 0 ] || fail 'it runs as root'
say "its user is $user, given by systemd"
inside sh -c 'ls /var/cache/jointly/ | grep -q .' || fail 'it has not kept its converted weights'
say 'its converted weights are in its cache'
before=$(main_pid)
inside systemctl reload jointly || { inside journalctl -u jointly --no-pager | tail -n 20 >&2; fail 'it does not reload'; }
active >/dev/null && [ "$(main_pid)" = "$before" ] || fail 'a reload ends it'
say 'a reload keeps it'
inside sh -c "kill -9 $before"
restarted() { [ "$(main_pid)" != "$before" ] && active; }
until_true 60 'killed, it is started again' restarted
inside systemctl stop jointly
[ "$(inside systemctl show -P Result jointly)" = success ] || fail 'it does not stop in order'
say 'it stops in order'
echo 'all of it runs'
