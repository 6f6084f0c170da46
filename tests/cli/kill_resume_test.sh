#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of all ranks at 20 random points, resume each time on another number of ranks: the bits of an unbroken run.
# The seed of the points is printed; AP_KILL_SEED repeats them.
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: 25 runs of a sanitized build take too long; train_errors_test.sh stops and resumes it"; exit 77; }
setup_work 32

train 2 --set name=whole || { fail "unbroken run: $(tail -n 5 out.txt)"; pass_or_fail; }

seed=${AP_KILL_SEED:-$(($(date +%s) % 32768))}
RANDOM=$seed
echo "AP_KILL_SEED=$seed"

exec {silent}<> <(:) # nothing ever comes: to wait without a process
# Steps written so far, in $lines.
look()
{
    local all=()
    [ ! -e "runs/$1/metrics.jsonl" ] || mapfile -t all < "runs/$1/metrics.jsonl"
    lines=${#all[@]}
}

# Processes of this test's antipode-train, by the folder they run in.
rank_pids()
{
    local p
    for p in $(pgrep -x antipode-train); do
        [ "$(readlink "/proc/$p/cwd")" != "$work" ] || echo "$p"
    done
}

kills=0
tries=0
while [ $kills -lt 20 ] && [ $tries -lt 40 ]; do
    tries=$((tries + 1))
    n=$((1 + RANDOM % 4))
    run=k$((kills / 5)) # four runs of five kills each
    [ ! -e "runs/$run/summary.json" ] || rm -rf "runs/$run" # ended before its five kills: begin anew
    # up to 11 steps further than the time before, and somewhere in that step or in the save after it
    look $run
    target=$((lines + 1 + RANDOM % 11))
    pause=$(awk -v r="$RANDOM" 'BEGIN { printf "%.3f", r / 32768 * 0.15 }')
    ranks "$n" antipode train job.yaml --set name="$run" > kill.txt 2>&1 &
    job=$!
    for ((i = 0; i < 1200; i++)); do
        look $run
        [ "$lines" -lt $target ] || break
        kill -0 $job 2> /dev/null || break
        read -r -t 0.01 -u $silent _
    done
    sleep "$pause"
    pids=$(rank_pids)
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -9 $pids 2> /dev/null
    wait $job 2> /dev/null
    [ -e "runs/$run/summary.json" ] || kills=$((kills + 1))
done
[ $kills = 20 ] || fail "only $kills kills hit a running job"
for run in k0 k1 k2 k3; do
    train $((1 + RANDOM % 4)) --set name=$run || { fail "$run does not go on: $(tail -n 5 out.txt)"; continue; }
    same whole $run
    echo "$run: resumed $(jq .resumes runs/$run/summary.json) times"
done
resumes=$(cat runs/k?/summary.json | jq -s 'map(.resumes) | add')
[ "$resumes" -ge 8 ] || fail "only $resumes resumes: the kills came before the first state"
pass_or_fail
