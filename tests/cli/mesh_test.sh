#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Training on meshes under mpirun: tensor, pipeline and expert parallel runs give the losses of one rank; a state of one
# mesh is gone on from by another; a plan is followed, kept in the run directory, and refused where it does not fit.
# (Every way to share ranks out, and bits: tests/unit/test_stage.)
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
setup_work 32
sed -i 's/^train_steps: 50/train_steps: 8/; s/every: 20, sequences: 6/every: 4, sequences: 5/; s/warmup_steps: 5/warmup_steps: 2, schedule: constant/' job.yaml

# close RUN RUN TOLERANCE: losses of steps and evaluations within it, relative.
close()
{
    local worst
    worst=$(jq -n --slurpfile a "runs/$1/metrics.jsonl" --slurpfile b "runs/$2/metrics.jsonl" '
        def far(x; y): if x == null and y == null then 0 elif x == null or y == null then 1e9 else (x - y | fabs) / y end;
        if ($a | length) != ($b | length) then 1e9
        else [range($a | length) | far($a[.].loss; $b[.].loss), far($a[.].mtp_loss; $b[.].mtp_loss),
              (select($a[.].valid_loss != null and $b[.].valid_loss != null) | far($a[.].valid_loss; $b[.].valid_loss))] |
              max end')
    jq -en "$worst <= $3" > /dev/null || fail "$2 differs from $1 by $worst, more than $3"
}

[ -z "${AP_TEST_SANITIZED:-}" ] || sed -i 's/^train_steps: 8/train_steps: 2/' job.yaml
train 1 --set name=one || fail "1 rank: $(tail -n 5 out.txt)"
mesh()
{
    local name=$1 n=$2
    shift 2
    train "$n" --set name="$name" "$@" || fail "$name: $(tail -n 5 out.txt)"
    close one "$name" 1e-5
}
mesh t2p2 4 --set parallel.tensor=2 --set parallel.pipeline=2
if [ -n "${AP_TEST_SANITIZED:-}" ]; then
    mesh e2 2 --set parallel.expert=2
    echo "fewer: other meshes, moved states and plans are those of the build beside this one"
    pass_or_fail
fi
mesh e2p3 6 --set parallel.expert=2 --set parallel.pipeline=3
mesh z2 4 --set parallel.pipeline=2 --set parallel.schedule=zero-bubble
jq -e '.schedule == "zero-bubble" and [.stages[].in_flight] == [2, 2]' runs/z2/plan.json > /dev/null || fail "plan.json: $(cat runs/z2/plan.json)"
train 2 --set name=flat --set parallel.schedule=zero-bubble
[ $? = 3 ] || fail "zero-bubble without a pipeline: $(tail -n 3 out.txt)"
grep -q 'schedule zero-bubble: pipeline 1 has no bubble to fill' out.txt || fail "$(cat out.txt)"
jq -e '.parallel.pipeline == 3 and .parallel.expert == 2 and (.machine.identity | length) == 32' runs/e2p3/plan.json > /dev/null ||
    fail "plan.json: $(cat runs/e2p3/plan.json)"

# ---- a state goes on on another mesh: first half here, second half there
half() { train "$1" --set name=moved --set train_steps="$2" "${@:3}" || fail "moved: $(tail -n 5 out.txt)"; }
half 4 4 --set parallel.tensor=2 --set parallel.expert=2
antipode ckpt verify runs/moved/ckpt > verify.txt 2>&1 || fail "a state of slices is damaged: $(tail -n 3 verify.txt)"
half 3 6 --set parallel.pipeline=3
grep -q 'a new plan is made.*ranks' out.txt || fail "nothing is said of the other mesh: $(cat out.txt)"
half 2 8
close one moved 1e-5
antipode eval job.yaml --set name=t2p2 --json > eval.json 2> err.txt || fail "eval: $(cat err.txt)"
jq -en --slurpfile s runs/t2p2/summary.json --slurpfile e eval.json '($s[0].valid_loss - $e[0].loss | fabs) < 1e-4' > /dev/null ||
    fail "eval of a state of slices: $(cat eval.json), trained: $(jq .valid_loss runs/t2p2/summary.json)"

# ---- a plan: ranks in another order, uneven stages; kept for the next start
jq '.place = [3, 1, 0, 2] | .stages[0].layers = 2 | .stages[1].first_layer = 2 | .stages[1].layers = 1' runs/t2p2/plan.json > other.json
mesh planned 4 --set parallel.tensor=2 --set parallel.pipeline=2 --plan other.json
cmp -s <(jq -S 'del(.date)' other.json) <(jq -S 'del(.date)' runs/planned/plan.json) || fail "the plan was not kept: $(cat runs/planned/plan.json)"
train 4 --set name=planned --set parallel.tensor=2 --set parallel.pipeline=2 --set train_steps=9 || fail "again: $(tail -n 5 out.txt)"
jq -e '.place == [3, 1, 0, 2]' runs/planned/plan.json > /dev/null || fail "started again, the plan is another: $(cat runs/planned/plan.json)"
jq '.machine.identity = "00000000000000000000000000000000"' other.json > elsewhere.json
train 4 --set name=elsewhere --plan elsewhere.json --set parallel.tensor=2 --set parallel.pipeline=2
[ $? = 3 ] || fail "a plan for other nodes was followed: $(tail -n 3 out.txt)"
grep -q 'elsewhere.json: the plan was made for other nodes' out.txt || fail "$(cat out.txt)"
pass_or_fail
