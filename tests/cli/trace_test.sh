#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode train --trace: one file of all ranks that is JSON; spans nest on every thread, their sums agree with the
# metrics of the same steps, the range of steps is kept, the bits of the run stay. A trace that cannot be written and a
# range that is none are refused before the run begins; a run that is stopped, killed or fails leaves a readable trace.
set -u
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: a sanitized build is tested by tests/unit/test_trace"; exit 77; }
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
setup_work 32
sed -i 's/^checkpoint:.*/checkpoint: {every: 3, keep: 3}/; s/^eval:.*/eval: {every: 2, sequences: 6}/' job.yaml

# nested FILE: for each process and thread: a span lies inside of the last one still open or after it (to 2 ns).
nested()
{
    jq -e '[.[] | select(.ph == "X") | {pid, tid, a: (.ts * 1000 | round), b: ((.ts + .dur) * 1000 | round), name}] |
        group_by([.pid, .tid]) | map(sort_by([.a, -.b]) | reduce .[] as $s ({open: [], bad: []};
            .open |= (until(length == 0 or last.b > $s.a + 2; .[:-1])) |
            (if (.open | length) > 0 and .open[-1].b + 2 < $s.b then .bad += [[.open[-1], $s]] else . end) |
            .open += [$s]) | .bad) | add | if length == 0 then true else error("not nested: \(.[0])") end' "$1" > nested.txt 2>&1
}

# count FILE PID NAME: spans of that name; FILE is read once.
count()
{
    [ -e "counts.$1" ] || jq -r '.[] | select(.ph == "X") | "\(.pid) \(.name)"' "$1" | sort | uniq -c > "counts.$1"
    awk -v what="$2 $3" '{ n = $1; sub(/^ *[0-9]+ /, ""); if ($0 == what) found = n } END { print found + 0 }' "counts.$1"
}

lines() { wc -l 2> /dev/null < "runs/$1/metrics.jsonl" || echo 0; }

train 2 --set name=traced --set train_steps=6 --set threads=2 --trace t.json --trace-steps 2-4 || fail "traced: $(tail -n 4 out.txt)"
grep -q 'trace written to t.json' out.txt || fail "no word of the trace: $(cat out.txt)"
[ "$(echo t.json*)" = t.json ] || fail "the files of the ranks are still there: $(echo t.json*)"
jq -e 'type == "array"' t.json > /dev/null || fail "the trace is not a JSON array"
jq -e 'all(.[]; (.ph | IN("X", "M", "i")) and (.name | type == "string") and (.pid | IN(0, 1)) and (.tid | IN(0, 1)))' \
    t.json > /dev/null || fail "an event lacks its fields"
jq -e 'all(.[] | select(.ph == "X"); (.ts | type == "number") and .dur >= 0)' t.json > /dev/null || fail "a span lacks its time"
for pid in 0 1; do
    [ "$(jq -c "[.[] | select(.pid == $pid and .name == \"step\" and .ph == \"X\").args.step]" t.json)" = '[2,3,4]' ] ||
        fail "rank $pid: other steps than 2 to 4"
    # three micro-batches for each rank and step, through three layers and the MTP block of tiny-v3
    for half in forward backward; do
        n=$(count t.json $pid "micro-batch $half")
        [ "$n" = 9 ] || fail "rank $pid: $n micro-batches $half, not 9"
    done
    [ "$(count t.json $pid "layer backward")" = 36 ] || fail "rank $pid: $(count t.json $pid "layer backward") layers back, not 36"
    for name in data forward backward loss MTP 'attention forward' 'attention backward' 'MoE forward' 'MoE backward' \
        'MLP forward' 'MLP backward' 'gradient reduction' exchange 'gradient norm' optimizer update 'parameter gather' \
        commit metrics evaluation 'checkpoint save' gemm mla_attn_fwd mla_attn_bwd grouped_gemm router_fwd adamw; do
        [ "$(count t.json $pid "$name")" -gt 0 ] || fail "rank $pid: no span '$name'"
    done
    jq -e "any(.[]; .pid == $pid and .ph == \"M\" and .name == \"process_name\" and (.args.name | startswith(\"rank $pid\")))" \
        t.json > /dev/null || fail "rank $pid has no name"
done
nested t.json || fail "$(head -c 600 nested.txt)"
jq -e 'all(.[] | select(.cat == "op"); .args.dtype != null and .args.flops >= 0 and .args.bytes > 0 and
    ([.args[] | strings | select(test("^[0-9x]+$"))] | length >= 1))' t.json > /dev/null || fail "an operation lacks dtype, work or shape"
# A span of a step is the step of the metrics, its parts fill it, and what they hold is not more than it.
jq -e -n --slurpfile t t.json --slurpfile m runs/traced/metrics.jsonl '
    ($t[0] | map(select(.ph == "X"))) as $x | [$x[] | select(.pid == 0 and .name == "step")] | all(. as $s |
        ($m[] | select(.step == $s.args.step)) as $l |
        ([$x[] | select(.pid == 0 and .cat == "step" and .name != "step" and .ts >= $s.ts and .ts < $s.ts + $s.dur) | .dur] | add) as $parts |
        ([$x[] | select(.pid == 0 and .cat == "op" and .ts >= $s.ts and .ts < $s.ts + $s.dur) | .dur] | add) as $ops |
        ($s.dur <= $l.step_ms * 1000 + 1) and ($parts <= $s.dur) and ($ops <= $parts) and $parts > 0 and $ops > 0)' > /dev/null ||
    fail "the sums of the spans do not fit the steps"
# One clock for both ranks: a rank waits for the other one in each step, so that their steps overlap.
jq -e '[.[] | select(.ph == "X" and .name == "step")] | group_by(.args.step) | all(.[]; length == 2 and
    ([.[].ts] | max) < ([.[] | .ts + .dur] | min))' t.json > /dev/null || fail "the clocks of the ranks differ"

# ---- the same bits without; the default range is 10 steps
train 2 --set name=plain --set train_steps=6 --set threads=2 || fail "plain: $(tail -n 4 out.txt)"
same plain traced
antipode train job.yaml --set name=ten --set train_steps=12 --trace ten.json > out.txt 2>&1 || fail "ten: $(tail -n 4 out.txt)"
[ "$(count ten.json 0 step)" = 10 ] || fail "$(count ten.json 0 step) steps by default, not 10"
antipode train job.yaml --set name=ten --set train_steps=15 --trace ten.json > out.txt 2>&1 || fail "resumed: $(tail -n 4 out.txt)"
[ "$(jq -c '[.[] | select(.ph == "X" and .name == "step").args.step]' ten.json)" = '[13,14,15]' ] || fail "a resumed run: other steps"

# ---- bench
antipode bench step job.yaml --trace bench.json --repeats 3 > out.txt 2>&1 || fail "bench: $(tail -n 4 out.txt)"
nested bench.json || fail "bench: $(head -c 600 nested.txt)"
[ "$(count bench.json 0 step)" = 4 ] || fail "bench: $(count bench.json 0 step) steps, not the warm-up and 3"

# ---- refused: code, one line, no run directory
refused()
{
    local want=$1 text=$2 n=$3 code
    shift 3
    train "$n" --set name=refused "$@"
    code=$?
    [ $code = "$want" ] || fail "$*: exit code $code, not $want: $(tail -n 4 out.txt)"
    [ "$(grep -c "$text" out.txt)" = 1 ] || fail "$*: not one line with '$text': $(cat out.txt)"
    [ ! -e runs/refused ] || fail "$*: left a run directory"
}
refused 3 'nowhere/t.json: cannot write the trace: No such file or directory' 2 --trace nowhere/t.json
refused 4 'cannot write the trace: Is a directory' 2 --trace runs
refused 2 'trace-steps 5-2: not a range of steps' 2 --trace u.json --trace-steps 5-2
[ ! -e u.json ] || fail "a refused range made a file"

# ---- failed, stopped on request, killed
train 2 --set name=wild --set optim.lr=10 --set optim.clip=0 --set optim.warmup_steps=0 --set optim.weight_decay=10 \
    --set optim.eps=1e-30 --set limits.nan_steps=2 --set train_steps=400 --set eval.every=0 --trace wild.json
[ $? = 7 ] || fail "a run that fails: $(tail -n 3 out.txt)"
nested wild.json || fail "failed: $(head -c 600 nested.txt)"
[ "$(echo wild.json*)" = wild.json ] || fail "failed: $(echo wild.json*)"
antipode train job.yaml --set name=stop --set train_steps=1000000 --set eval.every=0 --set checkpoint.every=0 --trace stop.json \
    --trace-steps 1-2000 > out.txt 2>&1 &
pid=$!
for ((i = 0; i < 400; i++)); do
    [ "$(lines stop)" -lt 3 ] || break
    sleep 0.05
done
kill -USR2 $pid
wait $pid
[ $? = 5 ] || fail "USR2: not exit code 5: $(tail -n 3 out.txt)"
nested stop.json || fail "stopped: $(head -c 600 nested.txt)"
[ "$(count stop.json 0 step)" -ge 3 ] || fail "stopped: $(count stop.json 0 step) steps in the trace"
# A rank that is killed: the files stay apart, each whole up to the last step.
ranks 2 antipode train job.yaml --set name=dead --set train_steps=1000000 --set eval.every=0 --set checkpoint.every=0 \
    --trace dead.json --trace-steps 1-20 > out.txt 2>&1 &
pid=$!
for ((i = 0; i < 600; i++)); do
    [ "$(lines dead)" -lt 22 ] || break
    sleep 0.05
done
victim=
for rank in $(pgrep -x antipode-train); do
    # Rank 1 of this test, and of no other one.
    if [ "$(readlink "/proc/$rank/cwd")" = "$work" ] && tr '\0' '\n' < "/proc/$rank/environ" | grep -qx 'OMPI_COMM_WORLD_RANK=1'; then
        victim=$rank
    fi
done
[ -n "$victim" ] || fail "killed: rank 1 was not found"
[ -z "$victim" ] || kill -KILL "$victim"
! wait $pid || fail "killed: exit code 0"
for file in dead.json dead.json.rank-1; do
    if nested $file; then
        [ "$(jq '[.[] | select(.ph == "X" and .name == "step")] | length' $file)" = 20 ] || fail "killed: $file lacks steps"
    else
        fail "killed: $file: $(head -c 600 nested.txt)"
    fi
done
pass_or_fail
