#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What can go wrong around a run: each mistake has one message from one rank, the documented exit code, and nothing
# is lost. Stop requests end with code 5 and a state.
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
setup_work 32
if [ -n "${AP_TEST_SANITIZED:-}" ]; then # a step takes a second there
    sed -i 's/global_sequences: 12/global_sequences: 6/; s/20, sequences: 6/20, sequences: 2/' job.yaml
    echo "fewer: sequences of a step: 6, not 12"
fi

# refused CODE PATTERN RANKS [OPTION...]: exit code and exactly one error line with this text.
refused()
{
    local want=$1 pattern=$2 n=$3 code
    shift 3
    train "$n" "$@"
    code=$?
    [ "$code" = "$want" ] || fail "$*: exit code $code, not $want: $(tail -n 4 out.txt)"
    [ "$(grep -c "$pattern" out.txt)" = 1 ] || fail "$*: not one line with '$pattern': $(cat out.txt)"
}

# ---- more ranks than micro-batches; meshes that the model or the ranks do not allow
if [ -z "${AP_TEST_SANITIZED:-}" ]; then
    refused 3 'data 8 x expert 1: a step has only 6 micro-batches.*at most data 6' 8 --set name=many
    refused 3 'parallel.tensor is 3, which does not divide num_attention_heads of the model, 4' 3 --set name=many --set parallel.tensor=3
    refused 3 '3 ranks cannot be shared out by tensor 1 x pipeline 2 x expert 1' 3 --set name=many --set parallel.pipeline=2
else # the start of a process takes seconds there
    echo "fewer: meshes that are refused: 1, not 4; what goes on from an older state is not compared with an unbroken run"
fi
refused 3 'data 3 x tensor 1 x pipeline 1 x expert 1 are not 2 ranks' 2 --set name=many --set parallel.data=3
refused 3 'no/plan.json: cannot open: No such file or directory' 2 --set name=many --plan no/plan.json
[ ! -e runs/many ] || fail "a refused job left a run directory"

# ---- a run directory that cannot be written
echo x > afile
refused 3 'afile: cannot create directory: Not a directory' 2 --set run_dir=afile/run
if [ "$(id -u)" = 0 ] && command -v setpriv > /dev/null; then
    mkdir locked && chmod 755 locked . "$TMPDIR"
    setpriv --reuid 65534 --regid 65534 --clear-groups antipode train job.yaml --set run_dir="$work/locked/run" > out.txt 2>&1
    [ $? = 4 ] || fail "unwritable directory: $(cat out.txt)"
    grep -q 'locked.*Permission denied' out.txt || fail "unwritable directory: $(cat out.txt)"
fi

# ---- two jobs on one directory
antipode train job.yaml --set name=one --set train_steps=1000000 > long.txt 2>&1 &
long=$!
for ((i = 0; i < 200; i++)); do
    [ ! -s runs/one/metrics.jsonl ] || break
    sleep 0.05
done
refused 4 'another job is running in this run directory' 2 --set name=one
# ---- a stop request: one step more, a state, code 5
kill -USR2 $long
wait $long
[ $? = 5 ] || fail "USR2: not exit code 5: $(tail -n 3 long.txt)"
grep -q 'stopped on request after step' long.txt || fail "no word of the stop: $(tail -n 3 long.txt)"
step=$(jq .steps runs/one/summary.json)
[ -e "runs/one/ckpt/step-$(printf %012d "$step")/manifest.json" ] || fail "no state of step $step"
# ---- and it goes on, to an end that was moved
train 2 --set name=one --set train_steps=$((step + 3)) || fail "resume after a stop: $(tail -n 3 out.txt)"
[ "$(jq .step <(tail -n 1 runs/one/metrics.jsonl))" = $((step + 3)) ] || fail "the metrics end elsewhere"

# ---- a learning rate that destroys the weights: skipped, counted, stopped, the state before kept
pair=2
[ -z "${AP_TEST_SANITIZED:-}" ] || pair=1
train $pair --set name=nan --set train_steps=7 || fail "clean part: $(tail -n 3 out.txt)"
wild=(--set name=nan --set optim.lr=10 --set optim.clip=0 --set optim.warmup_steps=0 --set optim.weight_decay=10
    --set optim.eps=1e-30 --set limits.nan_steps=4 --set train_steps=400)
refused 7 '^INVALID: loss or gradient was not finite in steps' $pair "${wild[@]}"
if [ -z "${AP_TEST_SANITIZED:-}" ]; then # without mpirun, which has words of its own at the end
    antipode train job.yaml "${wild[@]}" > out.txt 2>&1
    [ $? = 7 ] || fail "alone: not exit code 7: $(tail -n 2 out.txt)"
    tail -n 1 out.txt | grep -q '^INVALID' || fail "the verdict is not the last line: $(tail -n 2 out.txt)"
fi
[ "$(grep -c '"kind": "skip"' runs/nan/events.jsonl)" -ge 4 ] || fail "skips are not in the events"
[ "$(jq -r .verdict runs/nan/summary.json)" = invalid ] || fail "summary: $(cat runs/nan/summary.json)"

# ---- a damaged newest state: the one before is taken, said so, and the bits are those of an unbroken run
end=16 again=3
if [ -n "${AP_TEST_SANITIZED:-}" ]; then
    end=8 again=1
else
    train 2 --set name=good --set train_steps=$end || fail "unbroken run: $(tail -n 3 out.txt)"
fi
train 2 --set name=hurt --set train_steps=$end || fail "run to damage: $(tail -n 3 out.txt)"
file=runs/hurt/ckpt/step-$(printf %012d $end)/rank-00001.h5
printf '\377\377\377\377' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") / 2)) conv=notrunc 2> /dev/null
train $again --set name=hurt --set train_steps=$end || fail "damaged state: $(tail -n 5 out.txt)"
[ -n "${AP_TEST_SANITIZED:-}" ] || same good hurt
grep -q '"kind": "recover"' runs/hurt/events.jsonl || fail "no event tells of the damaged state"
[ -n "$(find runs/hurt/ckpt -maxdepth 1 -name '*.corrupt*')" ] || fail "the damaged state was not put aside"
# all of them damaged: nothing is overwritten, code 6
for file in runs/hurt/ckpt/step-*/rank-00000.h5; do
    truncate -s 1000 "$file"
done
refused 6 'none of . checkpoints is intact' 2 --set name=hurt --set train_steps=20
refused 6 'no intact state is here, only . damaged ones' 2 --set name=hurt --set train_steps=20 # started again
[ "$(wc -l < runs/hurt/metrics.jsonl)" = $end ] || fail "the metrics of the lost run were cut"
train 1 --set name=hurt --set train_steps=6 --set checkpoint.resume=false || fail "begin anew: $(tail -n 3 out.txt)"

# ---- a full disk: the states already there stay good, code 4
full_disk()
{
    mkdir -p full
    mount -t tmpfs -o size=6m none full 2> /dev/null || return 1
    train 2 --set run_dir=full/run --set checkpoint.every=1 --set checkpoint.keep=100
    code=$?
    states=$(find full/run/ckpt -maxdepth 1 -name 'step-*[0-9]' | wc -l)
    [ $code = 4 ] || fail "full disk: exit code $code: $(tail -n 3 out.txt)"
    grep -q 'the file system has .* MiB left; earlier checkpoints are intact' out.txt || fail "full disk: $(cat out.txt)"
    [ "$states" -ge 1 ] || fail "full disk: no state left"
    [ -z "$(find full/run/ckpt -name '*tmp*')" ] || fail "full disk: temporary files left"
    mount -o remount,size=60m none full
    last=$(find full/run/ckpt -maxdepth 1 -name 'step-*[0-9]' | sort | tail -n 1)
    last=${last##*step-}
    train 1 --set run_dir=full/run --set train_steps=$((10#$last + 6)) || fail "after making room: $(tail -n 3 out.txt)"
    grep -q "resumed from the state of step" out.txt || fail "after making room it began anew"
    umount full
}
if ! full_disk; then
    umount full 2> /dev/null
    echo "SKIP part: a full disk needs a tmpfs of our own, and mount is not allowed here"
fi
pass_or_fail
