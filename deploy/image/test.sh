#!/usr/bin/env bash
# Builds the serving image and tries it as it is to be run: test.sh [TAG]. Without a docker engine
# it takes podman (installed where we may), and without a registry a base image made from Debian.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:-localhost/disranker}
name=disranker-image-test-$$
debian_base=localhost/python-debian:bookworm

main() {
    trap clean_up EXIT
    if timeout 10 docker info >/dev/null 2>&1; then
        engine=docker
        run_options=()
        health=.Config.Healthcheck.Test
    else
        engine=podman
        # Limits above our own are refused inside a container; a health check's timer wants systemd.
        run_options=(--runtime runc --ulimit nofile=1024:1024 --ulimit nproc=1024:1024
            --read-only-tmpfs=false --no-healthcheck)
        health=.HealthCheck.Test
        install_missing podman runc
        choose_base
    fi
    local began=$SECONDS
    timeout 900 deploy/image/build.sh "$image"
    echo "built $image in $((SECONDS - began)) s"

    began=$(date +%s.%N)
    "$engine" run --detach --name "$name" --read-only --network none --cap-drop ALL \
        --security-opt no-new-privileges "${run_options[@]}" "$image" >/dev/null
    local health_check
    health_check=$("$engine" image inspect --format "{{json $health}}" "$image")
    timeout 120 "$engine" exec --interactive "$name" python - "$began" "$health_check" \
        <deploy/image/probe.py
    stop_cleanly
    "$engine" image inspect --format '{{.Size}}' "$image" | awk '{ printf "image %.0f MB\n", $1 / 1e6 }'
}

# What these packages bring is installed only where that needs no password.
install_missing() {
    local missing=() package
    for package in "$@"; do
        command -v "$package" >/dev/null || missing+=("$package")
    done
    ((${#missing[@]} == 0)) && return
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "image-test needs a docker engine, or: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}"
}

choose_base() {
    local official
    official=$(sed -n 's/^ARG BASE=//p' Dockerfile)
    if [[ -n ${BASE:-} ]] || podman image exists "$official" ||
        timeout 300 podman pull --quiet "$official" 2>/dev/null; then
        return
    fi
    export BASE=$debian_base
    podman image exists "$BASE" && return
    echo "no registry gives $official: making $BASE"
    install_missing debootstrap
    work=$(mktemp -d)
    timeout 600 debootstrap --variant=minbase \
        --include=python3,python3-venv,ca-certificates bookworm "$work" >"$work.log" ||
        { tail "$work.log" >&2 && exit 1; }
    rm -rf "$work"/var/cache/apt/* "$work"/var/lib/apt/lists/*
    tar -C "$work" -c . | podman import - "$BASE" >/dev/null
}

stop_cleanly() {
    local code
    "$engine" stop --time 30 "$name" >/dev/null
    code=$("$engine" inspect --format '{{.State.ExitCode}}' "$name")
    echo "SIGTERM: exit code $code"
    ((code == 0))
}

clean_up() {
    local status=$?
    ((status == 0)) || "$engine" logs "$name" 2>&1 | tail -n 20 >&2 || true
    "$engine" rm --force "$name" >/dev/null 2>&1 || true
    [[ -z ${work:-} ]] || rm -rf --one-file-system "$work" "$work.log"
}

main
