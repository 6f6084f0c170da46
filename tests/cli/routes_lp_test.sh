#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The plans of antipode routes against linear programs that another solver (GLPK) solves: tests/support/routes_lp.py.
set -u
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: another solver finds no errors of memory; routes_test.sh and tests/unit/test_synth look for them"; exit 77; }
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99
for tool in glpsol python3; do
    command -v $tool > /dev/null || { echo "SKIP: $tool is not installed (Debian: glpk-utils, python3)"; exit 77; }
done

# Small tables with rates from a fixed sequence: whole graphs, and one with few links.
table()
{
    awk -v n="$1" -v seed="$2" -v share="$3" 'BEGIN {
        print "src,dst,rtt_ms,gbit_per_s"
        x = seed
        for (i = 0; i < n; i++)
            for (j = 0; j < n; j++) {
                x = (x * 1103 + 12345) % 65521
                if (i != j && (j == (i + 1) % n || j == (i + n - 1) % n || x % 100 < share))
                    printf "s%d,s%d,%d,%.3f\n", i, j, 5 + x % 90, 0.5 + x % 1000 / 100
            }
    }'
}
table 4 17 100 > four.csv
table 5 3 100 > five.csv
table 6 29 20 > six.csv
for caps in site pair; do
    for file in four five six; do
        antipode routes --topology $file.csv --caps $caps --json > $file-$caps.json
        check "$file, $caps" python3 "$AP_SRCDIR/tests/support/routes_lp.py" $file.csv $file-$caps.json exact
    done
    for file in aws8 aws12; do
        for codec in additive opaque; do
            antipode routes --topology "$AP_SRCDIR/inputs/wan/$file.csv" --caps $caps --codec $codec --json > $file.json
            check "$file, $caps, $codec" python3 "$AP_SRCDIR/tests/support/routes_lp.py" "$AP_SRCDIR/inputs/wan/$file.csv" $file.json
        done
    done
done

# The checker itself sees a lie: a bound that is too low, a rate that is too high.
sed 's/"bound_gbit_per_s": .*/"bound_gbit_per_s": 0.1,/' five-site.json > lie.json
checks=$((checks + 1))
python3 "$AP_SRCDIR/tests/support/routes_lp.py" five.csv lie.json > /dev/null 2>&1 && { echo 'FAIL: a false bound passed'; failures=$((failures + 1)); }
awk '/"trees": \[/ { in_trees = 1 } in_trees && /"gbit_per_s"/ && !done { sub(/: .*/, ": 99,"); done = 1 } { print }' five-site.json > lie.json
checks=$((checks + 1))
python3 "$AP_SRCDIR/tests/support/routes_lp.py" five.csv lie.json > /dev/null 2>&1 && { echo 'FAIL: a false rate passed'; failures=$((failures + 1)); }
finish
