#!/usr/bin/env bash
# A cluster of one node on this machine, for the tests: no systemd, no accounting, no cgroups.
# usage (as root): slurm_loopback.sh FOLDER up|down      then export SLURM_CONF=FOLDER/slurm.conf
# needs: apt-get install slurm-wlm munge
set -euo pipefail
folder=$(realpath -m "$1")
host=$(hostname -s)
pids() { cat "$folder"/run/*.pid 2> /dev/null || true; }

if [ "$2" = down ]; then
    # this cluster's own daemons, by number
    for pid in $(pids); do kill "$pid" 2> /dev/null || true; done
    exit 0
fi

mkdir -p "$folder"/{run,state,spool,munge}
# munge refuses sockets and keys in folders that others may write
chown -R munge: "$folder/munge"
chmod 755 "$folder" "$folder/munge"
if [ ! -e "$folder/munge/key" ]; then
    head -c 1024 /dev/urandom > "$folder/munge/key"
    chown munge: "$folder/munge/key"
    chmod 400 "$folder/munge/key"
fi
runuser -u munge -- munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
cp "$folder/munge/pid" "$folder/run/munged.pid"

cat > "$folder/slurm.conf" << END
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURM_PORT:-17817}
SlurmdPort=$((${SLURM_PORT:-17817} + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a job that goes back into the queue waits for this long; 120 seconds by default
AuthInfo=socket=$folder/munge/socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=${SLURM_CPUS:-2} State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=1:00:00 State=UP
END
export SLURM_CONF=$folder/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ] && exit 0
    sleep 0.1
done
tail -n 5 "$folder"/slurm*.log >&2
exit 1
