#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whether the test bed's links are what they are said to be: round trips within 1 ms or 1%, rates within 3%, losses within
# four standard deviations and accounted for to the packet, one-way delays and cuts, a spike, a scenario.
# A measurement that is off on a machine that was busy with other things is repeated, up to three times, and then counts
# as skipped, with the figures. What no busy machine can explain (a packet too early, one through a cut) fails at once.
set -u
# The code itself is run under the sanitizers by bed_test.sh and the unit tests.
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: a sanitized build is not measured"; exit 77; }
bed=$AP_SRCDIR/tests/testbed
probe=$AP_BUILDDIR/tests/testbed/wanprobe
export AP_TESTBED_DIR=$TMPDIR/bed
# shellcheck source=tests/testbed/lib.sh
. "$bed/lib.sh"
tries=3
failures=0
checks=0
skipped=()
flood_id=0 # one per flood: the server keeps the figures of each

cat > "$TMPDIR/sites.csv" << 'CSV'
src,dst,delay_ms,rate_mbit
s1,s2,25,20
s1,s3,100,100
s3,s1,50,100
s2,s3,5,
CSV

testbed_start --seconds 200 "$TMPDIR/sites.csv"
declare -A address
servers=()
stop()
{
    kill "${servers[@]}" 2> /dev/null
    wait "${servers[@]}" 2> /dev/null
    "$bed/down"
}
trap stop EXIT
for site in s1 s2 s3; do
    address[$site]=$("$bed/in" address $site) || exit 1
    : > "$TMPDIR/$site.server"
    "$bed/in" $site "$probe" serve 200 > "$TMPDIR/$site.server" &
    servers+=($!)
done
for site in s1 s2 s3; do
    for ((i = 0; i < 100; i++)); do
        grep -q ready "$TMPDIR/$site.server" && break
        sleep 0.05
    done
done

# from SITE COMMAND ARG...: the probe's answer, in $answer.
from()
{
    local site=$1
    shift
    answer=$("$bed/in" "$site" "$probe" "$@") || hard "probe $* from $site failed"
    kept=$(awk -v so_far="$kept" '$1 == "waited_ms" { print so_far + $2 }' <<< "$answer")
}

# field NAME: the word behind NAME in $answer.
field()
{
    awk -v name="$1" '{ for (i = 1; i < NF; i++) if ($i == name) { print $(i + 1); exit } }' <<< "$answer"
}

# is EXPRESSION: arithmetic of awk.
is()
{
    awk "BEGIN { exit !($1) }"
}

# hard TEXT: nothing but a fault of the test bed explains this.
hard()
{
    echo "FAIL: $1"
    failures=$((failures + 1))
}

# ms for which the emulator and the servers have waited for a processor so far, and processors for their host.
machine_waited()
{
    local pid emulator
    read -r emulator _ < "$AP_TESTBED_DIR/pid"
    {
        for pid in "$emulator" "${servers[@]}"; do
            cat "/proc/$pid/schedstat" 2> /dev/null
        done
        grep '^cpu ' /proc/stat
    } | awk '$1 == "cpu" { sum += $9 * 10; next } { sum += $2 * 1e-6 } END { printf "%.3f\n", sum }'
}

# measure FUNCTION ARG...: the function sets $off to what is wrong, and $figures.
measure()
{
    local try start verdict before waited ms
    checks=$((checks + 1))
    for ((try = 1; try <= tries; try++)); do
        off='' figures='' kept=0
        "$bed/ctl" reset
        before=$(machine_waited)
        start=${EPOCHREALTIME/./}
        "$@"
        waited=$(awk "BEGIN { print $kept + $(machine_waited) - $before }")
        ms=$(((${EPOCHREALTIME/./} - start) / 1000))
        verdict=$("$bed/ctl" stats | grep -E '^(lateness|verdict)' | tr '\n' ' ')
        figures="$figures; ${verdict% }; waited for processors $waited ms in $ms ms"
        if [ -z "$off" ]; then
            echo "ok: $*: $figures"
            return
        fi
        # Quiet: the emulator was on time, and nobody was kept waiting for more than 1% of the time.
        if [[ $verdict == *"verdict usable"* ]] && is "$waited < 0.01 * $ms"; then
            hard "$*: $off: $figures"
            return
        fi
        echo "disturbed, try $try: $*: $off: $figures"
    done
    skipped+=("$*: $off: $figures")
}

# round_trip FROM TO MS
round_trip()
{
    from "$1" ping "${address[$2]}" 25 20
    local least median
    least=$(field min_ms) median=$(field median_ms)
    figures="least $least median $median of $3 ms, $(field received) of $(field sent)"
    is "$least < $3" && hard "$1 to $2: an answer before its time: $figures"
    is "$median - $3 > 1 && $median - $3 > 0.01 * $3" && off="round trip $median ms, not $3"
    [ "$(field received)" = "$(field sent)" ] || off="$(field received) answers to $(field sent)"
}

# rate FROM TO MBIT SECONDS ONE-WAY-MS: offered half as much again.
rate()
{
    local mbit least
    flood_id=$((flood_id + 1))
    from "$1" flood "${address[$2]}" $flood_id "$(awk "BEGIN { print 1.5 * $3 }")" "$4"
    sleep 0.5
    from "$1" report "${address[$2]}" $flood_id
    mbit=$(awk "BEGIN { print ($(field bytes) - 1500) * 8e-6 / $(field seconds) }")
    least=$(field least_ms)
    figures="$mbit of $3 Mbit/s, one way at least $least of $5 ms"
    is "$least < $5" && hard "$1 to $2: a packet before its time: $figures"
    is "$least > $5 + 1 + 0.01 * $5 + 12 / $3" && off="one way $least ms, not $5"
    is "$mbit < 0.97 * $3 || $mbit > 1.03 * $3" && off="rate $mbit Mbit/s, not $3"
}

# stream FROM TO MBIT: TCP's payload with its headers (1448 of 1500 bytes).
stream()
{
    from "$1" stream "${address[$2]}" 3
    local mbit
    mbit=$(awk "BEGIN { print $(field mbit) * 1500 / 1448 }")
    figures="TCP $mbit of $3 Mbit/s"
    is "$mbit < 0.97 * $3 || $mbit > 1.03 * $3" && off="TCP $mbit Mbit/s, not $3"
}

# of_link FROM TO NAME: of the emulator's figures.
of_link()
{
    "$bed/ctl" stats | awk -v src="$1" -v dst="$2" -v name="$3" \
        '$1 == "link" && $2 == src && $3 == dst { for (i = 4; i <= NF; i++) { split($i, w, "="); if (w[1] == name) print w[2] } }'
}

# loss FROM TO SHARE: 8000 small packets in a second and a half.
loss()
{
    local sent received lost
    flood_id=$((flood_id + 1))
    "$bed/ctl" set "$1" "$2" loss="$3"
    from "$1" flood "${address[$2]}" $flood_id 8.533 1.5 200
    sent=$(field sent)
    sleep 0.2
    lost=$(of_link "$1" "$2" lost)
    "$bed/ctl" set "$1" "$2" loss=0
    from "$1" report "${address[$2]}" $flood_id
    received=$(field packets)
    figures="$lost of $sent lost, $received received"
    is "$lost - $sent * $3 > 4 * sqrt($sent * $3) || $sent * $3 - $lost > 4 * sqrt($sent * $3)" && hard "$1 to $2: loss: $figures, set to $3"
    [ $((received + lost)) = "$sent" ] || off="$sent sent, but $received received and $lost lost"
}

# A cut of one direction stops that one and no other.
one_way_cut()
{
    "$bed/ctl" cut-oneway s1 s2
    flood_id=$((flood_id + 1))
    from s1 flood "${address[s2]}" $flood_id 1 0.2 200
    from s2 flood "${address[s1]}" $flood_id 1 0.2 200
    local sent
    sent=$(field sent)
    sleep 0.2
    "$bed/ctl" heal-oneway s1 s2
    from s3 report "${address[s1]}" $flood_id
    figures="$(field packets) of $sent against the cut"
    [ "$(field packets)" = "$sent" ] || off=$figures
    from s3 report "${address[s2]}" $flood_id
    [ "$(field packets)" = 0 ] || hard "$(field packets) packets came through a cut"
}

# A spike of 200 ms for 0.5 s and a cut of 0.5 s by the clock of a scenario, seen by a ping every 20 ms. Order is kept, so
# that pings after the spike wait for those in it; a ping is lost whose way out or back meets the cut (25 ms earlier).
scenario()
{
    printf '0.5 spike s1 s2 200 0.5\n1.5 cut s1 s2\n2.0 heal s1 s2\n' > "$TMPDIR/scenario"
    "$bed/ctl" scenario "$TMPDIR/scenario"
    from s1 watch "${address[s2]}" 20 3
    local high lost gap usual
    high=$(awk '$2 != "lost" && $2 > 245 { n++ } END { print n + 0 }' <<< "$answer")
    lost=$(grep -c lost <<< "$answer")
    gap=$(awk '$2 != "lost" && $2 > 245 && !high { high = $1 } $2 == "lost" && !lost { lost = $1 } END { print lost - high }' <<< "$answer")
    usual=$(awk '$2 != "lost" && $2 < 52 { n++ } END { print n + 0 }' <<< "$answer")
    figures="$high pings in the spike of 25, $lost lost of 26, $gap of 0.975 s between, $usual as usual of 89"
    is "$high < 23 || $high > 27 || $lost < 24 || $lost > 28 || $gap < 0.93 || $gap > 1.02 || $usual < 85" && off=$figures
}

measure round_trip s1 s2 50
measure round_trip s1 s3 150
measure round_trip s2 s3 10
measure rate s1 s2 20 2 25
measure rate s1 s3 100 1 100
measure rate s3 s1 100 1 50
measure stream s1 s2 20
measure loss s2 s3 0.05
measure one_way_cut
measure scenario

printf '%s measurements, %s failures, %s skipped, scheduling %s\n' "$checks" "$failures" "${#skipped[@]}" \
    "$("$bed/ctl" stats | sed -n 's/.*scheduling=\(.*\) offload.*/\1/p')"
[ "$failures" = 0 ] || exit 1
if [ ${#skipped[@]} -gt 0 ]; then
    printf 'SKIP: the machine was busy with other things: %s\n' "${skipped[@]}"
    exit 77
fi
