#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Jobs on a real Slurm (slurmctld and two slurmd that this test starts): a job file submitted as it is, the scripts of
# jobscripts/slurm, a mistake in the file, a stop request with requeue and resume.
set -u
# shellcheck source=tests/support/slurm.sh
. "$AP_SRCDIR/tests/support/slurm.sh"
# shellcheck source=tests/support/tiny_job.sh
. "$AP_SRCDIR/tests/support/tiny_job.sh"

skip()
{
    echo "SKIP: $*"
    exit 77
}

missing=$(slurm_missing)
[ -z "$missing" ] || skip "not installed: $missing(Debian: slurm-wlm munge)"
[ -z "${AP_TEST_SANITIZED:-}" ] || skip "a sanitized build is tested without Slurm"

failures=0
fail()
{
    echo "FAIL: $*"
    failures=$((failures + 1))
}

# Other tests want the processors too: a rank that waits for another lets them have one.
export OMPI_MCA_mpi_yield_when_idle=1
trap slurm_stop EXIT
slurm_start "$TMPDIR/slurm" || { fail "Slurm did not start"; exit 1; }
work=$TMPDIR/work
tiny_job "$work" || { fail "no job"; exit 1; }
cd "$work" || exit 99
cp -r "$AP_SRCDIR/jobscripts" .

# finished ID OUT STATE TEXT: the job must end in STATE with TEXT in its output.
finished()
{
    local state
    state=$(slurm_wait_job "$1" 180)
    if [ "$state" != "$3" ] || ! grep -qE "$4" "$2"; then
        fail "job $1 ended $state, not $3 with '$4': $(cat "$2" 2> /dev/null)"
    fi
}

# ---- the job file itself
id=$(sbatch --parsable job.yaml) || fail "sbatch does not take the job file"
finished "$id" "out-$id.txt" COMPLETED '^VALID'
grep -q 'srun --mpi=pmix' "out-$id.txt" || fail "not started by srun: $(cat "out-$id.txt")"
[ "$(jq .environment.ranks runs/tiny/summary.json)" = 2 ] || fail "not 2 ranks: $(cat runs/tiny/summary.json)"
[ -z "$(ls runs/.jobs 2> /dev/null)" ] || fail "a copy of the job file was left behind"

# ---- the scripts
id=$(sbatch --parsable jobscripts/slurm/train.sbatch job.yaml --set name=script)
finished "$id" "antipode-$id.out" COMPLETED '^VALID'
timeout 60 salloc -Q --nodes=2 --ntasks-per-node=1 --time=2 jobscripts/slurm/interactive.sh job.yaml --set name=inter > inter.txt 2>&1 ||
    fail "salloc: $(cat inter.txt)"
grep -q '^VALID' inter.txt || fail "no verdict under salloc: $(cat inter.txt)"

# ---- a mistake in the file: exit code 3, one message with the place
sed 's/^train_steps/train_stepz/' job.yaml > bad.yaml
id=$(sbatch --parsable --output=bad.txt bad.yaml)
finished "$id" bad.txt FAILED 'train_stepz'
scontrol show job "$id" | grep -q 'ExitCode=3:0' || fail "exit code of a bad job: $(scontrol show job "$id" | grep ExitCode)"
[ "$(grep -c train_stepz bad.txt)" = 1 ] || fail "more than one message: $(cat bad.txt)"

# ---- a stop request: saved, requeued, resumed, finished
id=$(sbatch --parsable --ntasks-per-node=1 jobscripts/slurm/requeue.sbatch job.yaml --set name=long --set train_steps=200 \
    --set checkpoint.every=0)
for _ in $(seq 100); do
    [ "$(cat runs/long/metrics.jsonl 2> /dev/null | wc -l)" -ge 3 ] && break
    sleep 0.2
done
scancel --signal=USR2 "$id"
finished "$id" "antipode-long-$id.out" COMPLETED '^VALID'
grep -q 'restart 1 of' "antipode-long-$id.out" || fail "not requeued: $(cat "antipode-long-$id.out")"
[ "$(jq -r .step runs/long/metrics.jsonl | sort -n | uniq | wc -l)" = 200 ] || fail "steps are missing after the restart"

[ $failures = 0 ] && echo "slurm: as expected"
exit $((failures > 0))
