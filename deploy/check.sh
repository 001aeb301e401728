#!/usr/bin/env bash
# Checks the files of this folder with the tools that read them. Needs systemd, nginx (Debian) and Python; what is missing
# fails. What no tool here can tell is in README.md.
#
#   deploy/check.sh [VENV]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-target/venv-deploy}
[ -x "$venv/bin/hadolint" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q -r deploy/requirements.txt; }
step() { printf '== %s\n' "$*"; "$@"; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The unit names a program that need not be installed here.
sed "s|/usr/local/bin/jointly|$scratch/jointly|" deploy/systemd/jointly.service > "$scratch/jointly.service"
printf '#!/bin/sh\n' > "$scratch/jointly" && chmod +x "$scratch/jointly"
step systemd-analyze verify --man=no "$scratch/jointly.service"
step systemd-analyze security --offline=true --threshold=20 --no-pager "$scratch/jointly.service" | tail -n 1

step "$venv/bin/hadolint" deploy/container/Containerfile

for file in deploy/kubernetes/*.yaml; do
    case $file in
        */kustomization.yaml | */prometheus-adapter.yaml) ;; # of other programs
        *) step "$venv/bin/kubernetes-validate" --strict --kubernetes-version 1.33.0 "$file" ;;
    esac
done

cat > "$scratch/nginx.conf" <<END
error_log $scratch/error.log;
pid $scratch/nginx.pid;
events {}
http { include $PWD/deploy/nginx/jointly.conf; }
END
step nginx -q -t -c "$scratch/nginx.conf"

step "$venv/bin/envoy" --mode validate -c deploy/envoy/envoy.yaml --use-dynamic-base-id --log-level error

step "$venv/bin/python" deploy/check.py
if [ -n "${JOINTLY_BIN:-}" ]; then
    for file in deploy/systemd/jointly.toml deploy/container/jointly.toml; do
        step "$JOINTLY_BIN" serve --config "$file" --check-config
    done
else
    echo "1 skipped: the configurations were not read by jointly; JOINTLY_BIN names it"
fi
