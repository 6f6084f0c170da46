#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The same bits on 1, 2, 3, 4 and 6 ranks over 50 steps: losses, gradient norms, evaluations, weights; a rerun with
# --reprod and one that replays the decisions; eval of the saved states gives the losses of the run.
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
setup_work 16

steps=50 short=10 fall=1 rank_counts="2 3 4 6"
if [ -n "${AP_TEST_SANITIZED:-}" ]; then
    steps=5 short=5 fall=0.05 rank_counts=3 # ten times slower, and the bits are those of the build beside it
    sed -i "s/^train_steps: 50/train_steps: $steps/" job.yaml
fi
train 1 --set name=r1 || fail "1 rank: $(tail -n 5 out.txt)"
tail -n 1 out.txt | grep -q '^VALID' || fail "the last line is not the verdict: $(tail -n 1 out.txt)"
[ "$(wc -l < runs/r1/metrics.jsonl)" = $steps ] || fail "$(wc -l < runs/r1/metrics.jsonl) lines of metrics, not $steps"
for n in $rank_counts; do
    train "$n" --set name="r$n" || fail "$n ranks: $(tail -n 5 out.txt)"
    same r1 "r$n"
done
# It learns: this test would also pass on a model that stands still.
jq -e -s --argjson fall $fall '.[0].loss - .[-1].loss > $fall' runs/r1/metrics.jsonl > /dev/null || fail "the loss did not fall"

without_mpirun_and_replays()
{
    # a single process without mpirun, which measures the peak itself
    antipode train job.yaml --set name=alone --set monitor.peak_gflops=auto > out.txt 2>&1 || fail "without mpirun: $(tail -n 5 out.txt)"
    same r1 alone
    jq -e '.peak_flops_measured > 0 and .mfu > 0' runs/alone/summary.json > /dev/null || fail "no peak was measured: $(cat runs/alone/summary.json)"
    jq -e '.peak_flops_measured == null and .mfu > 0' runs/r1/summary.json > /dev/null || fail "the stated peak: $(cat runs/r1/summary.json)"

    # activations kept or computed again
    train 2 --set name=again --set recompute=true || fail "recompute: $(tail -n 5 out.txt)"
    same r1 again

    # --reprod twice, threads left to the program; then another machine follows the journal of the first
    sed '/^threads/d' job.yaml > free.yaml
    for run in a b; do
        ranks 2 antipode train free.yaml --reprod --set name="$run" --set train_steps=$short > out.txt 2>&1 ||
            fail "--reprod: $(tail -n 5 out.txt)"
    done
    same a b
    antipode train free.yaml --replay runs/a/decisions.jsonl --set name=c --set train_steps=$short > out.txt 2>&1 ||
        fail "--replay: $(tail -n 5 out.txt)"
    same a c
    # a hash that is stated must come out
    hash=$(weights a)
    antipode train free.yaml --reprod --set name=d --set train_steps=$short --set expect.weights_hash="$hash" > out.txt 2>&1 ||
        fail "stated hash: $(tail -n 2 out.txt)"
    antipode train free.yaml --reprod --set name=e --set train_steps=$short --set seed=12 --set expect.weights_hash="$hash" > out.txt 2>&1
    [ $? = 7 ] || fail "another seed gave the stated hash: $(tail -n 2 out.txt)"
    tail -n 1 out.txt | grep -q '^INVALID: weights hash' || fail "no verdict: $(tail -n 1 out.txt)"
}
[ -n "${AP_TEST_SANITIZED:-}" ] || without_mpirun_and_replays

# eval: newest state, a step, the best, on other ranks; the numbers of the run
for n in 1 3; do
    ranks "$n" antipode eval job.yaml --set name=r3 --json > eval.json 2> err.txt || fail "eval: $(cat err.txt)"
    [ "$(jq .loss eval.json)" = "$(jq .valid_loss runs/r3/summary.json)" ] || fail "eval on $n ranks: $(cat eval.json)"
    [ "$(jq .step eval.json)" = $steps ] || fail "eval took step $(jq .step eval.json)"
done
antipode eval job.yaml --set name=r3 --step best --json > eval.json 2> err.txt || fail "eval best: $(cat err.txt)"
[ "$(jq .loss eval.json)" = "$(jq .best_valid_loss runs/r3/summary.json)" ] || fail "eval best: $(cat eval.json)"
antipode eval job.yaml --set name=r3 > eval.txt 2>&1 || fail "eval: $(cat eval.txt)"
grep -q '^bigram entropy' eval.txt || fail "eval prints no bigram entropy: $(cat eval.txt)"
antipode eval job.yaml --set name=r3 --step 2 > eval.txt 2>&1 && fail "eval of a state that is not there"
antipode eval job.yaml --set name=r3 --step soon > eval.txt 2>&1
[ $? = 2 ] || fail "eval --step soon: $(cat eval.txt)"
antipode eval job.yaml --set name=none > eval.txt 2>&1 && fail "eval of a run that is not there"
pass_or_fail
