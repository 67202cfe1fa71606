#!/usr/bin/env bash
# Builds the serving image: build.sh [TAG]. With docker, or podman where no docker engine answers.
# BASE=… in the environment takes another base image, EXTRAS=cpu,otel other extras than cpu; the
# PIP_… settings there hold in the build.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:-localhost/disranker}
secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT

options=(
    --tag "$image"
    --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
)
if [[ -n ${BASE:-} ]]; then
    options+=(--build-arg "BASE=$BASE")
fi
if [[ -n ${EXTRAS:-} ]]; then
    options+=(--build-arg "EXTRAS=$EXTRAS")
fi

echo "[global]" >"$secrets/pip.conf"
for name in "${!PIP_@}"; do
    key=${name#PIP_}
    key=${key,,}
    value=${!name}
    case $key in
        find_links | config_file | cache_dir) continue ;; # paths of this machine
        cert)
            options+=(--secret "id=pip.crt,src=$value")
            value=/run/secrets/pip.crt
            ;;
    esac
    echo "${key//_/-} = $value" >>"$secrets/pip.conf"
done
options+=(--secret "id=pip.conf,src=$secrets/pip.conf")

if timeout 10 docker info >/dev/null 2>&1; then
    docker build "${options[@]}" .
else
    # The docker format, since OCI's has no health check; chroot, to build inside a container too.
    podman build --format docker --isolation chroot --layers "${options[@]}" .
fi
