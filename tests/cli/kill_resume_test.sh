#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of all ranks at 20 random points, resume each time on another number of ranks: the bits of an unbroken run.
# The seed of the points is printed; AP_KILL_SEED repeats them.
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
setup_work

train 2 --set name=whole || { fail "unbroken run: $(tail -n 5 out.txt)"; pass_or_fail; }

RANDOM=${AP_KILL_SEED:-$(( $(date +%s) % 32768 ))}
echo "AP_KILL_SEED=$RANDOM"
# The time of the whole run says how far apart the kills may be.
ms=$(jq '.wall_seconds * 1000 | floor' runs/whole/summary.json)

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
while [ $kills -lt 20 ] && [ $tries -lt 60 ]; do
    tries=$((tries + 1))
    n=$((1 + RANDOM % 4))
    run=k$((kills / 5)) # four runs of five kills each
    if [ -e "runs/$run/summary.json" ]; then
        rm -rf "runs/$run" # it got to its end before its five kills: begin anew
    fi
    ranks "$n" antipode train job.yaml --set name="$run" > kill.txt 2>&1 &
    job=$!
    # until the ranks are there, then some time of the run
    for ((i = 0; i < 200; i++)); do
        [ -z "$(rank_pids)" ] || break
        sleep 0.05
    done
    sleep "$(awk -v r=$RANDOM -v ms="$ms" 'BEGIN { printf "%.3f", 0.05 + r / 32768 * ms / 4000 }')"
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
[ "$resumes" -ge 4 ] || fail "only $resumes resumes: the kills came before the first state"
pass_or_fail
