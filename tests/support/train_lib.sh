# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the script tests of training: a private folder with a small dataset and a job of the tiny V3 model,
# mpirun, comparison of runs. Needs AP_SRCDIR and AP_BUILDDIR (tests/support/run.sh).

# In a sanitized build: whole stacks, since MPI unloads the plug-ins whose leaks tests/support/lsan.supp names by library.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}fast_unwind_on_malloc=0"

failures=0
fail()
{
    echo "FAIL: $*"
    failures=$((failures + 1))
}

# pass_or_fail: the end of a test.
pass_or_fail()
{
    [ "$failures" = 0 ] || { echo "$failures failed"; exit 1; }
    exit 0
}

# setup_work TOKENS: enter the folder; the data are texts of this source tree. TOKENS of a sequence.
setup_work()
{
    work=$TMPDIR/work
    mkdir -p "$work" && cd "$work" || exit 99
    mkdir corpus
    cp "$AP_SRCDIR"/src/base/*.c "$AP_SRCDIR"/src/train/*.c corpus/ || exit 99
    antipode prep --out data --valid-fraction 0.2 --combined-only corpus > prep.txt 2>&1 || { cat prep.txt; exit 99; }
    cat > job.yaml << YAML
name: tiny
train_steps: 50
seed: 11
threads: 1
model: {preset: tiny-v3}
data: {train: data/train, valid: data/valid, seq_len: $1}
batch: {global_sequences: 12, micro_sequences: 2}
optim: {lr: 3e-3, warmup_steps: 5}
checkpoint: {every: 7, keep: 3}
monitor: {peak_gflops: 100}
eval: {every: 20, sequences: 6}
YAML
}

# ranks N COMMAND...: under mpirun, more ranks than processors allowed.
ranks()
{
    local n=$1
    shift
    timeout --kill-after=5 120 mpirun -n "$n" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 "$@"
}

# train N [OPTION...]: the job on N ranks; output in out.txt.
train()
{
    local n=$1
    shift
    ranks "$n" antipode train job.yaml "$@" > out.txt 2>&1
}

# figures RUN: what must not depend on ranks, kills or time, one line for each step.
figures()
{
    jq -c '[.step, .loss, .mtp_loss, .balance_loss, .grad_norm, .loss_z, .norm_z, .lr, .tokens, .skipped, .load_max,
            .valid_loss]' "runs/$1/metrics.jsonl"
}

weights()
{
    jq -r .weights_xxh3_128 "runs/$1/summary.json"
}

# same RUN RUN: every figure and the weights are the same bits (jq prints doubles so that they read back the same).
same()
{
    if ! diff <(figures "$1") <(figures "$2") > diff.txt; then
        fail "$2 differs from $1: $(head -n 4 diff.txt)"
        return 1
    fi
    [ "$(weights "$1")" = "$(weights "$2")" ] || { fail "weights of $2 differ from $1"; return 1; }
}
