#!/usr/bin/env bash
# Builds an image: build.sh [TAG]. With docker, or podman where no docker engine answers. From the
# environment come TARGET (service; gpu, repository, triton), the Dockerfile's arguments (BASE,
# TRITON_BASE, EXTRAS, BUNDLE, TRITON_OPTIONS) and pip's PIP_… settings.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:-localhost/disranker}
secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT

options=(
    --tag "$image"
    --target "${TARGET:-service}" # and nothing after it, which podman would build too
    --label "org.opencontainers.image.version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
    --label "org.opencontainers.image.revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
)
for name in BASE TRITON_BASE EXTRAS BUNDLE TRITON_OPTIONS; do
    if [[ -n ${!name:-} ]]; then
        options+=(--build-arg "$name=${!name}")
    fi
done

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
