#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode probe over three sites of the test bed, against the matrix that the bed was made from: round trips within 1 ms
# or 1%, bandwidth within 5%, both directions. A run that the emulator calls unfit, or that is off while processes had to
# wait for processors, is repeated once and then counts as skipped with its figures.
set -u
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: a sanitized build is not measured"; exit 77; }
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
bed=$AP_SRCDIR/tests/testbed
export AP_TESTBED_DIR=$TMPDIR/bed
# shellcheck source=tests/testbed/lib.sh
. "$bed/lib.sh"
tries=2
cat > "$TMPDIR/m.csv" << 'CSV'
src,dst,delay_ms,rate_mbit
oslo,lima,10,100
lima,oslo,10,40
oslo,perth,30,60
lima,perth,40,80
perth,lima,40,30
CSV
testbed_start --seconds 500 --hostnames "$TMPDIR/m.csv"
trap '"$bed/down"' EXIT

# ms for which the emulator has waited for a processor so far, and processors for their host.
waited()
{
    local emulator
    read -r emulator _ < "$AP_TESTBED_DIR/pid"
    { cat "/proc/$emulator/schedstat"; grep '^cpu ' /proc/stat; } |
        awk '$1 == "cpu" { sum += $9 * 10; next } { sum += $2 * 1e-6 } END { printf "%.3f\n", sum }'
}

# Every link of topology.csv beside the matrix; TCP carries 1448 of 1500 bytes.
compare()
{
    awk -F, '
        FNR == 1 { file++ }
        file == 1 && FNR > 1 { delay[$1, $2] = $3; rate[$1, $2] = $4; sites[$1]; sites[$2] }
        file == 2 && $1 == "link" { rtt[$2, $3] = 2 * $11 / 1000; gbit[$2, $3] = $12 }
        END {
            for (a in sites) for (b in sites) {
                if (a == b) continue
                there = (a, b) in delay ? delay[a, b] : delay[b, a]
                back = (b, a) in delay ? delay[b, a] : delay[a, b]
                mbit = ((a, b) in rate ? rate[a, b] : rate[b, a]) * 1448 / 1500
                ms = there + back
                late = rtt[a, b] - ms
                off = gbit[a, b] * 1000 / mbit - 1
                printf "%s to %s: %.2f of %.0f ms, %.2f of %.2f Mbit/s (%+.1f%%)\n", a, b, rtt[a, b], ms, gbit[a, b] * 1000, mbit, 100 * off
                if (late < -0.01 || off > 0.05) early = 1
                if (late > 1 && late > 0.01 * ms || off < -0.05) wrong = 1
            }
            exit early ? 2 : wrong ? 1 : 0
        }' "$TMPDIR/m.csv" "$TMPDIR/topology.csv"
}

for ((try = 1; try <= tries; try++)); do
    "$bed/ctl" reset
    before=$(waited)
    start=${EPOCHREALTIME/./}
    timeout 200 "$bed/mpirun" oslo:1,lima:1,perth:1 antipode probe --threads 1 \
        --out "$TMPDIR/topology.csv" --svg "$TMPDIR/map.svg" > "$TMPDIR/out" 2> "$TMPDIR/err" || {
        cat "$TMPDIR/out" "$TMPDIR/err"
        exit 1
    }
    ms=$(((${EPOCHREALTIME/./} - start) / 1000))
    idle=$(awk "BEGIN { print $(waited) - $before }")
    verdict=$("$bed/ctl" stats | grep -E '^(lateness|verdict)' | tr '\n' ' ')
    figures=$(compare)
    result=$?
    # the bed has one asymmetric pair and no caps
    if [ $result = 0 ]; then
        caps=$(grep -cE '^(egress|ingress)' "$TMPDIR/topology.csv")
        { [ "$caps" = 0 ] && grep -q "asymmetric: oslo to lima" "$TMPDIR/out"; } || {
            result=1
            figures+=$'\n'"$caps caps, $(grep -c asymmetric: "$TMPDIR/out") asymmetric links"
        }
    fi
    printf '%s\n%s; waited for processors %s ms in %s ms\n' "$figures" "$verdict" "$idle" "$ms"
    [ $result != 0 ] || break
    if [ $result = 2 ] || { [[ $verdict == *"verdict usable"* ]] && awk "BEGIN { exit !($idle < 0.01 * $ms) }"; }; then
        echo "FAIL: no busy machine explains this"
        cat "$TMPDIR/out"
        exit 1
    fi
done
cat "$TMPDIR/out"
check "three sites found" grep -q "3 ranks on 3 nodes at 3 sites" "$TMPDIR/out"
for site in oslo lima perth; do
    check "the site $site has its host's name" grep -q "^rank,[0-9],,$site,$site," "$TMPDIR/topology.csv"
done
check "a heat map" grep -q "</svg>" "$TMPDIR/map.svg"
if [ "$result" != 0 ]; then
    [ "$failures" = 0 ] || exit 1
    echo "SKIP: the machine was busy with other things: $figures"
    exit 77
fi
finish
