#!/bin/sh
# What makes an image of Debian 12 one that the jobs run in, for container.def and Dockerfile: as root, beside the lock.
# CUDA's libraries are the lock's own wheels, of the very versions that torch was built with; the driver is the host's.
set -eu
here=$(dirname "$0")
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Triton compiles small programs against Python's headers; git tells by which commit a result was made.
apt-get install -qq --yes --no-install-recommends ca-certificates gcc git libc6-dev python3 python3-dev python3-venv >/dev/null
cache=$(mktemp -d)
XDG_CACHE_HOME=$cache sh "$here/install.sh" /opt/medvqa python3
rm -rf /var/lib/apt/lists/* "$cache"
