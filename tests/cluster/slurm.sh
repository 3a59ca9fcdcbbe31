#!/bin/bash
# slurm.sh start|stop FOLDER: a Slurm of three nodes on this machine, with its own munge; then SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
WHAT=$1; W=$2
if [ "$WHAT" = stop ]; then
  for f in "$W"/slurmd.*.pid "$W/slurmctld.pid" "$W/munge/munged.pid"; do
    if [ -f "$f" ]; then kill "$(cat "$f")" 2>/dev/null || true; fi
  done
  exit 0
fi
mkdir -p "$W/state" "$W/munge"
chmod 755 "$W"; chmod 711 "$W/munge"
[ -f "$W/munge/key" ] || { head -c 1024 /dev/urandom > "$W/munge/key"; chmod 600 "$W/munge/key"; }
/usr/sbin/munged --force --num-threads=2 --key-file="$W/munge/key" --socket="$W/munge/socket" \
  --pid-file="$W/munge/munged.pid" --log-file="$W/munge/log" --seed-file="$W/munge/seed"
cat > "$W/slurm.conf" <<C
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=16917
SlurmdPort=16918
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$W/munge/socket
CryptoType=crypto/munge
StateSaveLocation=$W/state
SlurmdSpoolDir=$W/spool.%n
SlurmctldPidFile=$W/slurmctld.pid
SlurmdPidFile=$W/slurmd.%n.pid
SlurmctldLogFile=$W/slurmctld.log
SlurmdLogFile=$W/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=3
Waittime=0
CommunicationParameters=NoAddrCache
NodeName=node[1-3] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[16921-16923] CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=test Nodes=node[1-3] Default=YES MaxTime=60 State=UP OverSubscribe=YES
C
export SLURM_CONF="$W/slurm.conf"
/usr/sbin/slurmctld
for n in node1 node2 node3; do mkdir -p "$W/spool.$n"; /usr/sbin/slurmd -N $n; done
for _ in $(seq 1 200); do
  [ "$(sinfo -h -N -o '%T' 2>/dev/null | grep -c idle)" = 3 ] && exit 0
  sleep 0.1
done
sinfo -N -l; tail -20 "$W"/*.log; exit 1
