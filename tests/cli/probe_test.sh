#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode probe on this machine: the form of what it writes, that the planner takes it, and what users get wrong. Whether
# its figures are true is tested on simulated machines (test_probe) and on the test bed.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99
# In a sanitized build: whole stacks, since MPI unloads the plug-ins whose leaks tests/support/lsan.supp names by library.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}fast_unwind_on_malloc=0"
alone=(timeout 300 antipode probe --quick --threads 1)
# Our own products of 1024 x 1024 take seconds each in a sanitized build, and have tests of their own.
if [ -n "${AP_TEST_SANITIZED:-}" ] && "${alone[@]}" --backend onednn --out one.csv > out 2>&1; then
    alone+=(--backend onednn)
fi
probe=(timeout 300 mpirun -n 4 "${alone[@]:2}")

"${probe[@]}" --json --svg map.svg --sites "here=*" > probe.json 2> err || cat err
check "probe.json" jq -e '.format == "antipode-probe" and .version == 1 and .levels.node.pairs == 6
    and .levels.node.gbit_per_s_least > 0 and .sites[0].name == "here" and (.sites | length) == 1 and (.ranks | length) == 4
    and ([.ranks[].gflops] | min) > 0 and .ranks[3].memory_gb > 0 and .links == []' probe.json > /dev/null
check "the heat map" grep -q "round trip" map.svg
if command -v xmllint > /dev/null; then
    check "well-formed SVG" xmllint --noout map.svg
fi
cat > job.yaml << 'EOF'
name: probe-test
model: {preset: tiny-v2lite}
data: {train: data/none, seq_len: 128}
batch: {global_sequences: 8, micro_sequences: 1}
train_steps: 10
EOF
expect 0 "4 ranks on 1 node" antipode plan job.yaml --topology topology.csv
# By a job: said in the summary, the file and the JSON; what the planner makes of it stays in order where that is wanted.
by_job()
{
    expect 0 "by micro-batches of probe-test (3 of 3 layers, 1 x 128 tokens, f32, 1 thread a rank)" "${probe[@]}" job.yaml \
        --set model.preset=tiny-v3 --out job.csv
    check "the file says by what" grep -q '^# speed of ranks by micro-batches of probe-test' job.csv
    check "whole layers and those of groups, of each rank" test "$(grep -c '^work,.*,moe,.*,\(whole\|tensor2\|expert2\),' job.csv)" -eq 12
    check "its collectives" grep -q '^group,\*,' job.csv
    check "and sums" grep -q '^sum,\*,' job.csv
    expect 0 "by what the layers of probe-test take on each rank" antipode plan job.yaml --set model.preset=tiny-v3 --topology job.csv
    expect 0 "layers were measured with another job, probe-test" antipode plan job.yaml --topology job.csv
    expect 0 "data 2 x tensor 1 x pipeline 2 x expert 1" antipode plan job.yaml --topology job.csv --set parallel.pipeline=2 --in-order --out order.json
    check "ranks in their order" jq -e '.place == [0, 1, 2, 3] and .predicted.step_s > 0' order.json
    expect 3 "4 ranks are not what the job" antipode plan job.yaml --topology job.csv --set parallel.pipeline=2 --set parallel.data=1 --in-order
}
if [ -n "${AP_TEST_SANITIZED:-}" ]; then
    echo "fewer: the speed by a job is measured by the build beside this one"
else
    by_job
fi
expect 2 "and none is given" antipode probe --set seed=1
expect 3 "nothing.yaml" antipode probe nothing.yaml
# One process alone is a machine as well.
expect 0 "1 rank on 1 node at 1 site" "${alone[@]}" --out one.csv
check "one.csv" grep -q '^rank,0,' one.csv

expect 2 "'b' is not NAME=PATTERN" antipode probe --sites 'a=x*,b'
expect 2 "'=x' is not NAME=PATTERN" antipode probe --sites '=x'
expect 2 "add NAME=" "${alone[@]}" --sites 'a=nothing-*'
expect 2 "seconds" antipode probe --seconds 0
expect 2 "streams" antipode probe --streams 17
expect 2 "did you mean --svg?" antipode probe --swg map.svg
expect 3 "/nowhere" timeout 300 antipode probe --out /nowhere/topology.csv
check "nothing is left where it could not be written" test ! -e /nowhere
finish
