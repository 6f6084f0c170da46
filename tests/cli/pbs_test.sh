#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Jobs with the environment that PBS gives them (Debian has no PBS server): started in the home directory by a shell that
# reads the script's path, PBS_NODEFILE with one line a process, PBS_O_WORKDIR.
set -u
# shellcheck source=tests/support/tiny_job.sh
. "$AP_SRCDIR/tests/support/tiny_job.sh"

# The launcher's own code has unit tests under the sanitizers.
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: a sanitized build is tested without PBS"; exit 77; }

failures=0
fail()
{
    echo "FAIL: $*"
    failures=$((failures + 1))
}

work=$TMPDIR/work
tiny_job "$work" || { fail "no job"; exit 1; }
cp -r "$AP_SRCDIR/jobscripts" "$work/"
mkdir "$TMPDIR/home" "$TMPDIR/spool" "$TMPDIR/bin"
host=$(hostname)
printf '%s\n%s\n' "$host" "$host" > "$TMPDIR/nodes"
# What qsub was asked for, for resume.pbs.
printf '#!/bin/sh\necho "$@" >> "%s"\n' "$TMPDIR/qsub.log" > "$TMPDIR/bin/qsub"
chmod +x "$TMPDIR/bin/qsub"

# pbs NUMBER SCRIPT [VAR=VALUE...]: run like a PBS job; exit code of the script.
pbs()
{
    local script=$TMPDIR/spool/$1.SC
    cp "$work/$2" "$script"
    chmod 700 "$script"
    shift 2
    (
        cd "$TMPDIR/home" || exit 99
        echo "exec $script" | env "$@" HOME="$TMPDIR/home" PATH="$TMPDIR/bin:$PATH" PBS_JOBID="$$.server" PBS_O_WORKDIR="$work" \
            PBS_NODEFILE="$TMPDIR/nodes" timeout 100 bash
    )
}

pbs 1 job.yaml A=1 > "$TMPDIR/1.txt" 2>&1 || fail "job file: exit $?: $(cat "$TMPDIR/1.txt")"
grep -q '^VALID' "$TMPDIR/1.txt" || fail "no verdict: $(cat "$TMPDIR/1.txt")"
[ "$(jq .environment.ranks "$work/runs/tiny/summary.json")" = 2 ] || fail "not 2 ranks: $(cat "$work/runs/tiny/summary.json")"

sed 's/^name: tiny/name: script/' "$work/job.yaml" > "$work/job2.yaml"
pbs 2 jobscripts/pbs/train.pbs JOB=job2.yaml > "$TMPDIR/2.txt" 2>&1 || fail "train.pbs: exit $?: $(cat "$TMPDIR/2.txt")"
grep -q '^VALID' "$TMPDIR/2.txt" || fail "no verdict: $(cat "$TMPDIR/2.txt")"

code=0
pbs 3 jobscripts/pbs/train.pbs > "$TMPDIR/3.txt" 2>&1 || code=$?
[ $code != 0 ] || fail "train.pbs without a job succeeds"
grep -q 'usage: qsub' "$TMPDIR/3.txt" || fail "no usage: $(cat "$TMPDIR/3.txt")"

# Stopped by the script's own timer: resubmits itself with the next round's number, and the next round finishes. The first
# round has more steps than any machine makes before the timer; the second ends a little beyond what the first reached.
sed -e 's/^name: tiny/name: long/' -e 's/^train_steps: .*/train_steps: 100000000/' -e 's/every: 2/every: 0/' "$work/job.yaml" > "$work/job3.yaml"
code=0
pbs 4 jobscripts/pbs/resume.pbs JOB=job3.yaml ANTIPODE_STOP_AFTER=2 > "$TMPDIR/4.txt" 2>&1 || code=$?
[ $code = 5 ] || fail "resume.pbs: exit $code, not 5: $(cat "$TMPDIR/4.txt")"
grep -q 'JOB=job3.yaml,ROUND=2' "$TMPDIR/qsub.log" || fail "not resubmitted: $(cat "$TMPDIR/qsub.log")"
reached=$(tail -n 1 "$work/runs/long/metrics.jsonl" | jq .step)
sed -i "s/^train_steps: .*/train_steps: $((${reached:-0} + 5))/" "$work/job3.yaml"
pbs 5 jobscripts/pbs/resume.pbs JOB=job3.yaml ROUND=2 > "$TMPDIR/5.txt" 2>&1 || fail "second round: exit $?: $(cat "$TMPDIR/5.txt")"
grep -q '^VALID' "$TMPDIR/5.txt" || fail "no verdict: $(cat "$TMPDIR/5.txt")"
[ "$(jq .resumes "$work/runs/long/summary.json")" = 1 ] || fail "the second round did not resume the first"
[ "$(wc -l < "$TMPDIR/qsub.log")" = 1 ] || fail "resubmitted a finished job"

[ $failures = 0 ] && echo "pbs: as expected"
exit $((failures > 0))
