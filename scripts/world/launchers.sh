#!/usr/bin/env bash
# Starts the example `world_member` with real launchers, two, three and four processes each, and says of each whether all
# processes found each other and summed right. A launcher that is not installed is skipped. Three machines are three network
# namespaces with addresses of their own, which needs root. Installs nothing.
#
#   scripts/world/launchers.sh [NAME...]     torchrun mpirun mpiexec srun procs hosts; all where none is named
#
# torchrun is found on the path or by TORCHRUN=/path/to/torchrun.
set -uo pipefail
cd "$(dirname "$0")/../.."

cargo build --quiet --release --locked -p nextscale-world --example world_member || exit 1
member=$PWD/target/release/examples/world_member
work=$(mktemp -d)
failed=0
started=()
spaces=()

cleanup() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null; done
  for space in "${spaces[@]}"; do ip netns del "$space" 2>/dev/null; done
  ip link del nxs-bridge 2>/dev/null
  # Slurm's daemons write their last lines when they are told to end.
  sleep 0.5
  rm -rf "$work"
}
trap cleanup EXIT

# check NAME COUNT WORDS: the output in $work/out has a line with WORDS of each of COUNT ranks.
check() {
  local name=$1 count=$2 words=$3 rank missing=
  for ((rank = 0; rank < count; rank++)); do
    grep -Eq "rank $rank on .* of $count by $words done" "$work/out" || missing+=" $rank"
  done
  if [ -z "$missing" ]; then
    echo "$name, $count processes: OK"
  else
    echo "$name, $count processes: FAILED, not done:$missing"
    sed 's/^/    /' "$work/out"
    failed=1
  fi
}

# expect NAME CODE ACTUAL WORDS: a launcher's exit code, and a line in the output.
expect() {
  if [ "$2" = "$3" ] && grep -Eq "$4" "$work/out"; then
    echo "$1: OK"
  else
    echo "$1: FAILED, exit code $3 where $2 was expected, or no line with '$4'"
    sed 's/^/    /' "$work/out"
    failed=1
  fi
}

skip() { echo "$1: skipped, $2"; }

procs() {
  local n code
  for n in 2 3 4; do
    "$member" --procs=$n >"$work/out" 2>&1
    check "own launcher" $n Launch
  done
  "$member" --procs=3 --max-restarts=1 --at=2:5:kill >"$work/out" 2>&1
  expect "own launcher, a process killed, all started again" 0 $? "rank 2 on .*started again"
}

torchrun() {
  local run=${TORCHRUN:-$(type -P torchrun)} n code
  [ -n "$run" ] || { skip torchrun "not installed"; return; }
  for n in 2 3 4; do
    "$run" --no-python --nproc-per-node=$n "$member" >"$work/out" 2>&1
    check "torchrun" $n Plain
  done
  "$run" --standalone --no-python --nproc-per-node=3 "$member" >"$work/out" 2>&1
  check "torchrun --standalone" 3 Plain
  "$run" --no-python --nproc-per-node=3 --max-restarts=1 --monitor-interval=0.5 "$member" --at=1:5:kill >"$work/out" 2>&1
  expect "torchrun, a process killed, all started again" 0 $? "rank 1 on .*started again"
  # Two agents that find each other stand for two machines: their addresses are not known, so the secret is needed.
  local port=29871 agent pids=()
  for agent in 0 1; do
    NEXTSCALE_SECRET="three words here" "$run" --no-python --nnodes=2 --node-rank=$agent --nproc-per-node=2 \
      --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:$port --rdzv-id=nxs --local-addr=127.0.0.1 \
      "$member" >"$work/out.$agent" 2>&1 &
    pids+=($!)
  done
  wait "${pids[@]}"
  cat "$work"/out.[01] >"$work/out"
  check "torchrun, two agents" 4 Plain
}

mpirun() {
  local run n
  run=$(type -P mpirun.openmpi) || { skip "mpirun (Open MPI)" "not installed"; return; }
  for n in 2 3 4; do
    "$run" --allow-run-as-root --oversubscribe -n $n "$member" >"$work/out" 2>&1
    check "mpirun (Open MPI)" $n OpenMpi
  done
}

mpiexec() {
  local run n
  run=$(type -P mpiexec.hydra) || { skip "mpiexec (MPICH)" "not installed"; return; }
  for n in 2 3 4; do
    "$run" -n $n "$member" >"$work/out" 2>&1
    check "mpiexec (MPICH)" $n Hydra
  done
  # Two jobs at once keep apart though Hydra gives them no name.
  local one two
  "$run" -n 3 "$member" --steps=200 --pause=0.01 >"$work/out.0" 2>&1 & one=$!
  "$run" -n 2 "$member" --steps=200 --pause=0.01 >"$work/out.1" 2>&1 & two=$!
  wait $one $two
  cp "$work/out.0" "$work/out"
  check "mpiexec, the first of two jobs at once" 3 Hydra
  cp "$work/out.1" "$work/out"
  check "mpiexec, the second" 2 Hydra
}

# A cluster of this one machine: munge, the controller and one node daemon, all in the temporary folder.
start_slurm() {
  local host cpus
  host=$(hostname -s)
  cpus=$(nproc)
  chmod 755 "$work"
  mkdir -p "$work/munge" "$work/state" "$work/spool"
  head -c 128 /dev/urandom >"$work/munge/key"
  chmod 400 "$work/munge/key"
  chmod 700 "$work/munge"
  mkdir -p "$work/sock" && chmod 755 "$work/sock"
  munged --force --foreground --key-file="$work/munge/key" --socket="$work/sock/munge" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" >"$work/munged.out" 2>&1 &
  started+=($!)
  cat >"$work/slurm.conf" <<CONF
ClusterName=nxs
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$work/sock/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
ReturnToService=2
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((cpus < 4 ? 4 : cpus)) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
SlurmdParameters=config_overrides
CONF
  export SLURM_CONF=$work/slurm.conf
  sleep 0.5
  slurmctld -D >"$work/slurmctld.out" 2>&1 & started+=($!)
  slurmd -D >"$work/slurmd.out" 2>&1 & started+=($!)
  local tries
  for tries in $(seq 60); do
    [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && return 0
    sleep 0.5
  done
  return 1
}

srun() {
  local n program
  for program in srun sbatch slurmctld slurmd munged; do
    type -P "$program" >/dev/null || { skip "srun (Slurm)" "$program is not installed"; return; }
  done
  if ! start_slurm; then
    skip "srun (Slurm)" "no cluster of this machine could be started"
    tail -n 5 "$work"/*.log "$work"/*.out "$work/munge/log" 2>/dev/null | sed 's/^/    /'
    return
  fi
  for n in 2 3 4; do
    timeout 100 "$(type -P srun)" -n $n "$member" >"$work/out" 2>&1
    check "srun (Slurm)" $n Slurm
  done
  # Inside a batch script: by srun as many as asked for, without it one.
  printf '#!/bin/sh\nsrun %s\n%s\n' "$member" "$member" >"$work/job.sh"
  (cd "$work" && timeout 100 sbatch -n 3 --wait --output="$work/out" job.sh >"$work/sbatch.out" 2>&1)
  check "sbatch with srun" 3 Slurm
  check "sbatch without srun" 1 Nobody
}

hosts() {
  if [ "$(id -u)" != 0 ] || ! type -P ip >/dev/null; then
    skip "three machines" "needs root and iproute2"
    return
  fi
  local name at=1 n rank pids
  if ! ip link add nxs-bridge type bridge 2>"$work/out"; then
    skip "three machines" "no network namespaces here: $(cat "$work/out")"
    return
  fi
  ip link set nxs-bridge up
  for name in a b c; do
    ip netns add nxs-$name && spaces+=(nxs-$name)
    ip link add nxs-$name type veth peer name eth0 netns nxs-$name
    ip link set nxs-$name master nxs-bridge up
    ip -n nxs-$name addr add 10.213.7.$at/24 dev eth0
    ip -n nxs-$name link set lo up
    ip -n nxs-$name link set eth0 up
    at=$((at + 1))
  done
  # on RANK SIZE FLAGS...: rank r runs on machine r modulo 3, with the variables that plain launchers set.
  on() {
    local rank=$1 size=$2 names=(a b c)
    shift 2
    local name=${names[$((rank % 3))]}
    env RANK="$rank" WORLD_SIZE="$size" MASTER_ADDR=10.213.7.1 MASTER_PORT=29500 NEXTSCALE_HOST=host-$name \
      ip netns exec nxs-$name "$member" "$@" >"$work/out.$rank" 2>&1
  }
  all() {
    local size=$1 rank pids=()
    shift
    rm -f "$work"/out.*
    for ((rank = size - 1; rank >= 0; rank--)); do
      on $rank $size "$@" & pids+=($!)
    done
    wait "${pids[@]}"
    cat "$work"/out.* >"$work/out"
  }
  for n in 2 3 4; do
    NEXTSCALE_SECRET="three words here" all $n
    check "three machines with a secret" $n Plain
    NEXTSCALE_HOSTS=10.213.7.1,10.213.7.2,10.213.7.3 all $n
    check "three machines by their addresses" $n Plain
  done
  all 3
  expect "three machines, neither known nor with a secret" 3 "$(grep -c 'set NEXTSCALE_SECRET to the same words' "$work/out")" "several machines"
  # Only two of the addresses are known: the third is turned away and named.
  NEXTSCALE_HOSTS=10.213.7.1,10.213.7.2 all 3 --rendezvous=3
  expect "a machine that is not of the job" 2 "$(grep -c '^rank 2 of 3 did not come' "$work/out")" "turned away: a process at 10.213.7.3"
  # A cable that is cut.
  (sleep 2 && ip link set nxs-c down) &
  NEXTSCALE_SECRET="three words here" all 3 --steps=100000 --pause=0.01 --silence=3
  ip link set nxs-c up
  expect "a machine that is cut off" 2 "$(cat "$work"/out.[01] | grep -c '^rank 2 on host-c: nothing was heard of it for 3 s')" "rank 0 on host-a: nothing was heard"
}

for name in "${@:-procs}" ; do
  case $name in
    procs | torchrun | mpirun | mpiexec | srun | hosts) ;;
    *) echo "unknown launcher: $name"; exit 2 ;;
  esac
done
if [ $# = 0 ]; then
  set -- procs torchrun mpirun mpiexec srun hosts
fi
for name in "$@"; do "$name"; done
exit $failed
