#!/bin/bash
# ssh.sh start|stop FOLDER: an sshd of our own on 127.0.0.1:12322 with keys in FOLDER; takes variables named BUILDER_*
set -euo pipefail
WHAT=$1; W=$2
if [ "$WHAT" = stop ]; then kill "$(cat "$W/sshd.pid")"; exit 0; fi
mkdir -p "$W" /run/sshd; chmod 700 "$W"
[ -f "$W/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$W/host"
[ -f "$W/id" ] || ssh-keygen -q -t ed25519 -N '' -f "$W/id"
cp "$W/id.pub" "$W/authorized_keys"
echo "[127.0.0.1]:12322 $(cut -d' ' -f1,2 "$W/host.pub")" > "$W/known_hosts"
cat > "$W/sshd_config" <<C
Port 12322
ListenAddress 127.0.0.1
HostKey $W/host
AuthorizedKeysFile $W/authorized_keys
PasswordAuthentication no
PermitRootLogin prohibit-password
AcceptEnv BUILDER_* PYTHONPATH
StrictModes no
UsePAM no
PidFile $W/sshd.pid
MaxStartups 50
MaxSessions 50
C
/usr/sbin/sshd -f "$W/sshd_config" -E "$W/sshd.log"
for _ in $(seq 1 100); do
  ssh -q -p 12322 -i "$W/id" -o UserKnownHostsFile="$W/known_hosts" -o BatchMode=yes 127.0.0.1 true && exit 0
  sleep 0.1
done
cat "$W/sshd.log"; exit 1
