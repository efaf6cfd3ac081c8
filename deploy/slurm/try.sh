#!/bin/bash
# Tries agents.sbatch: starts Slurm on this machine (munged, slurmctld and one slurmd, as processes of their own with
# all files in a temporary directory), a NATS server, the agents in a job, and ../../examples/cluster on them; cancels the job
# while calls run, and has another job end them; with TRY_LIMIT=1 also has a time limit pass, which takes two minutes more.
# Needs root, Go, and on Debian the packages slurm-wlm and munge. Nothing of it is left at the end, but for empty groups with cgroups.
set -euo pipefail
cd "$(dirname "$0")/../.."

dir=$(mktemp -d /tmp/multiproc-slurm-XXXXXX)
chmod 755 "$dir"
export SLURM_CONF=$dir/slurm.conf
pids=()

cleanup() {
	status=$?
	set +e
	[ "$status" = 0 ] || tail -n 20 "$dir"/*.log "$dir"/*.out
	scancel --user=root >"$dir/cleanup.log" 2>&1
	for _ in $(seq 100); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.2; done
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
	wait
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { echo "== $*"; }
until_true() { # SECONDS COMMAND...
	local end=$((SECONDS + $1)); shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || { echo "not within the time: $*" >&2; return 1; }
		sleep 0.2
	done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

say "Slurm $(slurmd -V)"
host=$(hostname -s)
cat >"$SLURM_CONF" <<EOF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/${TRY_PROCTRACK:-pgid}
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=4
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
echo CgroupPlugin=autodetect >"$dir/cgroup.conf"
mkdir "$dir/state" "$dir/spool"
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
munged --foreground --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
	--seed-file="$dir/munge.seed" --log-file="$dir/munged.log" >"$dir/munged.out" 2>&1 &
pids+=($!)
until_true 10 test -S "$dir/munge.socket"
slurmctld -D >"$dir/slurmctld.out" 2>&1 &
pids+=($!)
slurmd -D >"$dir/slurmd.out" 2>&1 &
pids+=($!)
idle() { sinfo --noheader --format=%t 2>/dev/null | grep -q '^idle$'; }
until_true 60 idle

say "server, key and program"
export MULTIPROC=$dir/multiproc
CGO_ENABLED=0 go build -o "$MULTIPROC" ./cmd/multiproc
CGO_ENABLED=0 go build -o "$dir/primes" ./examples/cluster
export MULTIPROC_NATS=nats://127.0.0.1:$(free_port) MULTIPROC_TRUST=$dir/trusted_keys MULTIPROC_CACHE=$dir/cache
"$MULTIPROC" server --dir "$dir/nats" --listen "${MULTIPROC_NATS#nats://}" >"$dir/server.log" 2>&1 &
pids+=($!)
key=$("$MULTIPROC" key new --out "$dir/key")
"$MULTIPROC" key sign --key "$dir/key" "$dir/primes"
"$MULTIPROC" key trust --file "$MULTIPROC_TRUST" "$key" try

submit() { # ARGUMENTS OF SBATCH...
	sbatch --parsable --output="$dir/agents-%j.out" --ntasks=2 --cpus-per-task=2 "$@" deploy/slurm/agents.sbatch
}
running() { [ "$(squeue --noheader --job "$1" --format=%T)" = RUNNING ]; }
gone() { [ -z "$(squeue --noheader --job "$1" 2>/dev/null)" ]; }
at_work() { grep -q 'runs a program' "$dir/agents-$1.out" 2>/dev/null; }

say "two agents with two slots each, in a job"
job=$(submit)
until_true 30 running "$job"
"$dir/primes" -nats "$MULTIPROC_NATS" -to 2000000 -parts 100 | tee "$dir/first.out"
grep -q '^148933 primes below 2000000$' "$dir/first.out"

say "scancel while calls run; another job ends them"
"$dir/primes" -nats "$MULTIPROC_NATS" -to 12000000 -parts 32 >"$dir/second.out" 2>&1 &
program=$!
until_true 30 at_work "$job"
sleep 1 # the calls take longer
began=$SECONDS
scancel "$job"
until_true 40 gone "$job"
say "job $job is gone after $((SECONDS - began)) s"
cat "$dir/agents-$job.out"
if grep -qi 'killed' "$dir/agents-$job.out"; then echo "an agent was killed" >&2; exit 1; fi
kill -0 "$program"
job=$(submit)
wait "$program"
cat "$dir/second.out"
grep -q '^788060 primes below 12000000$' "$dir/second.out"
scancel "$job"
until_true 40 gone "$job"

if [ "${TRY_LIMIT:-}" = 1 ]; then
	say "a time limit of two minutes, of which the agents hear a minute before"
	job=$(submit --time=2 --signal=TERM@60)
	until_true 30 running "$job"
	again() { grep -qs 'goes back into the queue' "$dir/agents-$job.out"; }
	until_true 150 again
	say "after $(squeue --noheader --job "$job" --format=%M): $(squeue --noheader --job "$job" --format='%T, %r')"
	cat "$dir/agents-$job.out"
fi
say "all of it works"
