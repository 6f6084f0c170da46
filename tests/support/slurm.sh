# SPDX-License-Identifier: Apache-2.0
# A private Slurm on this host for tests: munged, slurmctld and two slurmd with keys, sockets, ports and state in one
# folder. Source it, then: slurm_start FOLDER, slurm_wait_job ID SECONDS, slurm_stop.
# Ends only the processes it started. Works as root and as an ordinary user.
# shellcheck shell=bash
slurm_pids=()

# slurm_missing: what is not installed; empty when a private Slurm can be started.
slurm_missing()
{
    local tool
    for tool in munged slurmctld slurmd sbatch srun scontrol sinfo; do
        command -v "$tool" > /dev/null || printf '%s ' "$tool"
    done
}

# Three free ports, one after the other.
slurm_free_ports()
{
    local base=$((20000 + ($$ * 7) % 20000)) used port
    used=$(cat /proc/net/tcp /proc/net/tcp6 2> /dev/null | awk '{ split($2, a, ":"); print a[length(a)] }')
    while :; do
        for port in $base $((base + 1)) $((base + 2)); do
            grep -qi "^$(printf '%04X' "$port")$" <<< "$used" && { base=$((base + 3)); continue 2; }
        done
        echo $base
        return
    done
}

# background LOG CMD...: start and remember.
slurm_background()
{
    local log=$1
    shift
    "$@" > "$log" 2>&1 < /dev/null &
    slurm_pids+=($!)
}

slurm_start()
{
    local dir=$1 base host user
    base=$(slurm_free_ports)
    host=$(hostname)
    user=$(id -un)
    mkdir -p "$dir/ctld" "$dir/spool" "$dir/munge"
    chmod 700 "$dir/munge"
    head -c 1024 /dev/urandom > "$dir/munge/key"
    chmod 600 "$dir/munge/key"
    slurm_background "$dir/munged.out" munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
        --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" --num-threads=2
    cat > "$dir/slurm.conf" << EOF
ClusterName=antipode
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/ctld
SlurmctldPidFile=$dir/ctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdPidFile=$dir/%n.pid
SlurmdSpoolDir=$dir/spool/%n
SlurmdLogFile=$dir/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=pmix
ReturnToService=2
MessageTimeout=30
InactiveLimit=0
KillWait=5
MinJobAge=300
TmpFS=$dir/tmp-%n
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + 1)) CPUs=4 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + 2)) CPUs=4 State=UNKNOWN
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=60 State=UP
EOF
    echo 'CgroupPlugin=disabled' > "$dir/cgroup.conf"
    # Both nodes are this host: their shared-memory segments would have the same names.
    export SLURM_CONF=$dir/slurm.conf OMPI_MCA_btl=self,tcp
    for _ in $(seq 50); do [ -S "$dir/munge/socket" ] && break; sleep 0.1; done
    slurm_background "$dir/slurmctld.out" slurmctld -D -c
    mkdir -p "$dir/spool/n1" "$dir/spool/n2" "$dir/tmp-n1" "$dir/tmp-n2"
    slurm_background "$dir/n1.out" slurmd -D -N n1
    slurm_background "$dir/n2.out" slurmd -D -N n2
    for _ in $(seq 150); do
        [ "$(sinfo -h -t idle -o %D 2> /dev/null)" = 2 ] && return 0
        sleep 0.2
    done
    echo "slurm: the nodes did not become idle"
    tail -n 5 "$dir"/*.log "$dir"/*.out "$dir/munge/log" 2> /dev/null
    return 1
}

# slurm_wait_job ID SECONDS: wait for the end; prints the final state.
slurm_wait_job()
{
    local state deadline=$((SECONDS + $2))
    while [ $SECONDS -lt $deadline ]; do
        state=$(scontrol show job "$1" -o 2> /dev/null | grep -oE 'JobState=[A-Z_]+' | cut -d= -f2)
        case $state in
        PENDING | RUNNING | CONFIGURING | COMPLETING | REQUEUED | '') sleep 0.3 ;;
        *) echo "$state"; return 0 ;;
        esac
    done
    echo "TIMEOUT ${state:-unknown}"
    return 1
}

slurm_stop()
{
    local pid
    for pid in "${slurm_pids[@]}"; do kill "$pid" 2> /dev/null; done
    for pid in "${slurm_pids[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2> /dev/null
        wait "$pid" 2> /dev/null
    done
    slurm_pids=()
}
