#!/bin/bash
# disturb.sh OUTCOME FAULT JOB...: runs JOB, a meshmla with a rank on each of three hosts, inside a testbed. While it
# computes, evaluates FAULT, which may use `rank_on HOST`, `daemon_on HOST` and `ranks` for process ids. Writes the
# job's exit code and the seconds until its last rank was gone to OUTCOME.
set -u
outcome=$1 fault=$2
shift 2

processes_on() {
  local process
  for process in $(ip netns pids "$MLA_TESTBED$1"); do
    [ "$(cat "/proc/$process/comm" 2> /dev/null)" != "$2" ] || echo "$process"
  done
}
rank_on() { processes_on "$1" meshmla; }
daemon_on() { processes_on "$1" orted; }
ranks() { for host in host1 host2 host3; do rank_on $host; done; }

"$@" &
job=$!
until [ "$(ranks | wc -l)" -eq 3 ]; do sleep 0.05; done
sleep 1.5
eval "$fault"
start=$SECONDS
wait $job
code=$?
while [ -n "$(ranks)" ] && [ $((SECONDS - start)) -lt 60 ]; do sleep 0.1; done
echo "$code $((SECONDS - start))" > "$outcome"
