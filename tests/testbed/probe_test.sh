#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode probe over three sites of the test bed, against the matrix that the bed was made from and the caps of two of
# them: round trips within 1 ms or 1%, bandwidth and caps within 5%, both directions; no cap where there is none. A run
# that is off is repeated; if the last one is off as well, the test fails, or, where the emulator itself says that it was
# late, counts as skipped with its figures.
set -u
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: a sanitized build is not measured"; exit 77; }
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
bed=$AP_SRCDIR/tests/testbed
export AP_TESTBED_DIR=$TMPDIR/bed
# shellcheck source=tests/testbed/lib.sh
. "$bed/lib.sh"
tries=3
egress=(oslo 130)   # Mbit/s of all that leaves the site: 100 + 60 without it
ingress=(perth 110) # of all that enters: 60 + 80
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
"$bed/ctl" cap "${egress[0]}" egress_mbit="${egress[1]}"
"$bed/ctl" cap "${ingress[0]}" ingress_mbit="${ingress[1]}"

# Every link and cap of topology.csv beside the truth; TCP carries 1448 of 1500 bytes. 1: something is off, 2: an answer
# came before its time, which no busy machine explains.
compare()
{
    awk -F, -v egress="${egress[*]}" -v ingress="${ingress[*]}" '
        function least(a, b) { return a < b ? a : b }
        function judge(off) { if (off > 0.05 || off < -0.05) wrong = 1 }
        BEGIN { split(egress, w, " "); out[w[1]] = w[2]; split(ingress, w, " "); in_[w[1]] = w[2] }
        FNR == 1 { file++ }
        file == 1 && FNR > 1 { delay[$1, $2] = $3; rate[$1, $2] = $4; sites[$1]; sites[$2] }
        file == 2 && $1 == "link" { rtt[$2, $3] = 2 * $11 / 1000; gbit[$2, $3] = $12 }
        file == 2 && $1 ~ /^(egress|ingress)$/ { cap[$1, $2] = $12 }
        END {
            for (a in sites) for (b in sites) {
                if (a == b) continue
                there = (a, b) in delay ? delay[a, b] : delay[b, a]
                back = (b, a) in delay ? delay[b, a] : delay[a, b]
                mbit = (a, b) in rate ? rate[a, b] : rate[b, a]
                if (a in out) mbit = least(mbit, out[a])
                if (b in in_) mbit = least(mbit, in_[b])
                mbit *= 1448 / 1500
                ms = there + back
                late = rtt[a, b] - ms
                off = gbit[a, b] * 1000 / mbit - 1
                printf "%s to %s: %.2f of %.0f ms, %.2f of %.2f Mbit/s (%+.1f%%)\n", a, b, rtt[a, b], ms, gbit[a, b] * 1000, mbit, 100 * off
                if (late < -0.01) early = 1
                if (late > 1 && late > 0.01 * ms) wrong = 1
                judge(off)
            }
            for (a in sites) for (k = 0; k < 2; k++) {
                kind = k ? "ingress" : "egress"
                mbit = k ? in_[a] : out[a]
                found = (kind, a) in cap
                if (!mbit && !found) continue
                printf "%s of %s: a cap of %.2f Mbit/s, set to %.2f\n", kind, a, cap[kind, a] * 1000, mbit * 1448 / 1500
                if (!mbit || !found) wrong = 1
                else judge(cap[kind, a] * 1000 / (mbit * 1448 / 1500) - 1)
            }
            exit early ? 2 : wrong ? 1 : 0
        }' "$TMPDIR/m.csv" "$TMPDIR/topology.csv"
}

for ((try = 1; try <= tries; try++)); do
    "$bed/ctl" reset
    timeout 100 "$bed/mpirun" oslo:1,lima:1,perth:1 antipode probe --threads 1 \
        --out "$TMPDIR/topology.csv" --svg "$TMPDIR/map.svg" > "$TMPDIR/out" 2> "$TMPDIR/err" || {
        cat "$TMPDIR/out" "$TMPDIR/err"
        exit 1
    }
    verdict=$("$bed/ctl" stats | grep -E '^(lateness|verdict)' | tr '\n' ' ')
    figures=$(compare)
    result=$?
    grep -q "asymmetric: oslo to lima" "$TMPDIR/out" || { result=1 figures+=$'\n'"not said to be asymmetric: oslo to lima"; }
    printf 'try %s: %s\n%s\n' "$try" "$verdict" "$figures"
    [ $result != 0 ] || break
    [ $result != 2 ] || { echo "FAIL: no busy machine explains this"; cat "$TMPDIR/out"; exit 1; }
done
cat "$TMPDIR/out"
check "three sites found" grep -q "3 ranks on 3 nodes at 3 sites" "$TMPDIR/out"
for site in oslo lima perth; do
    check "the site $site has its host's name" grep -q "^rank,[0-9],,$site,$site," "$TMPDIR/topology.csv"
done
check "a heat map" grep -q "</svg>" "$TMPDIR/map.svg"
if [ "$result" != 0 ]; then
    check "figures as set: the emulator was not late ($verdict)" grep -q "verdict discard" <<< "$verdict"
    [ "$failures" = 0 ] || exit 1
    echo "SKIP: the emulator was late: $verdict $figures"
    exit 77
fi
finish
