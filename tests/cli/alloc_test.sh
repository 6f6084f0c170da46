#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Memory is planned: inside of a step the program asks for none. A preloaded counter (tests/support/alloc_count.c) watches
# steps 3 to 9 of a tiny V3 run (MoE, MTP, three or six micro-batches for each rank), on 1 and 2 ranks, with 1 and 2
# threads, backends cpu and onednn, and as a zero-bubble pipeline. The first two steps are left out: buffers of the backends take their size there, and
# oneDNN makes its primitives. Steps with an evaluation or a checkpoint are left out, as these make and free their own
# memory: the job has them at its end only. The reference backend is left out; it is plain on purpose.
# What libraries ask for themselves (oneDNN, MPI) is not ours to plan; it is printed.
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
if [ -n "${AP_TEST_SANITIZED:-}" ] || nm -D "$AP_BUILDDIR/antipode-train" 2> /dev/null | grep -q ' __asan_init'; then
    echo "SKIP: the sanitizer has its own malloc, which this counter cannot stand before"
    exit 77
fi
setup_work 32
counter=$AP_BUILDDIR/tests/support/alloc_count.so
[ -f "$counter" ] || { echo "no $counter"; exit 99; }
sed -i 's/^checkpoint:.*/checkpoint: {every: 0, keep: 3}/; s/^eval:.*/eval: {every: 0, sequences: 6}/; s/^monitor:.*//' job.yaml # the peak is measured: it warms up all threads
first=3 last=9

# counted NAME RANKS OPTION...: a run whose ranks report; reports in NAME.PID, what the program asked for in $ours.
counted()
{
    local name=$1 n=$2 reports
    shift 2
    ranks "$n" env LD_PRELOAD="$counter" ALLOC_FIRST=$first ALLOC_LAST=$last ALLOC_OUT="$work/$name" \
        antipode train job.yaml --set name="$name" --set train_steps=$((last + 1)) "$@" > out.txt 2>&1 ||
        { fail "$name: $(tail -n 5 out.txt)"; return 1; }
    # The launcher and the shell before the ranks do not train and do not report.
    reports=$(find . -maxdepth 1 -name "$name.[0-9]*" | wc -l)
    [ "$reports" = "$n" ] || { fail "$name: $reports reports of $n ranks"; return 1; }
    grep -hv "^steps $((last - first + 1))\$" "$name".[0-9]* | sed "s/^/$name: /"
    ! grep -h '^steps' "$name".[0-9]* | grep -qv " $((last - first + 1))\$" || fail "$name: not all steps were watched"
    ours=$(awk '$1 == "site" { n += $2 } END { print n + 0 }' "$name".[0-9]*)
}

# where NAME: the lines of our code behind the sites of a report.
where()
{
    sed -n 's/^site \([0-9]*\) .*program+\(0x[0-9a-f]*\)$/\1 \2/p' "$1".[0-9]* | sort -u | while read -r count address; do
        echo "    $count times from $(addr2line -f -e "$AP_BUILDDIR/antipode-train" "$address" 2> /dev/null | paste -sd ' ')"
    done
}

backends=cpu
antipode train job.yaml --set name=probe --set train_steps=5 --set backend=onednn > probe.txt 2>&1
case $? in
0) backends="cpu onednn" ;;
*) grep -q "there is no backend named 'onednn'" probe.txt || fail "backend onednn: $(tail -n 3 probe.txt)"
    echo "built without oneDNN: backend cpu only" ;;
esac
for backend in $backends; do
    for n in 1 2; do
        for threads in 1 2; do
            counted "$backend-$n-$threads" "$n" --set backend="$backend" --set threads=$threads || continue
            [ "$ours" = 0 ] || fail "$backend, $n ranks, $threads threads: $ours allocations in steps $first to $last
$(where "$backend-$n-$threads")"
        done
    done
done
counted zero-bubble 2 --set parallel.pipeline=2 --set parallel.schedule=zero-bubble || exit 1
[ "$ours" = 0 ] || fail "a zero-bubble pipeline: $ours allocations in steps $first to $last
$(where zero-bubble)"
# The counter counts: the reference backend does allocate, and so does a step with an evaluation and a checkpoint.
counted reference 1 --set backend=reference || exit 1
[ "$ours" -gt 0 ] || fail "the counter saw nothing of the reference backend, which allocates"
counted saving 1 --set checkpoint.every=4 || exit 1
[ "$ours" -gt 0 ] || fail "the counter saw nothing of a checkpoint"
# And it does not change the run.
antipode train job.yaml --set name=plain --set train_steps=$((last + 1)) > out.txt 2>&1 || fail "plain run: $(tail -n 3 out.txt)"
same plain cpu-2-2
pass_or_fail
