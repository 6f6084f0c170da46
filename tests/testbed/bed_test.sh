#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Life and death of the test bed: what it makes, what its commands answer to mistakes, and that nothing is left of it,
# however it ended. No timing decides anything here; waits are bounded.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
bed=$AP_SRCDIR/tests/testbed
probe=$AP_BUILDDIR/tests/testbed/wanprobe
export AP_TESTBED_DIR=$TMPDIR/bed
# shellcheck source=tests/testbed/lib.sh
. "$bed/lib.sh"
matrix=$TMPDIR/m.csv
printf 'src,dst,delay_ms\nleft,right:1,1\nleft,far,2\nright:1,far,3\n' > "$matrix"

testbed_start --seconds 100 --hostnames "$matrix"
trap '"$bed/down"' EXIT

# shellcheck disable=SC2317 # called by check
# gone PID: within 5 s it is no more, or a zombie.
gone()
{
    local i
    for ((i = 0; i < 100; i++)); do
        [ -d "/proc/$1" ] || return 0
        ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2> /dev/null || return 0
        sleep 0.05
    done
    return 1
}

emulator() { cut -d' ' -f1 "$AP_TESTBED_DIR/pid"; }
holders() { awk '$1 == "site" { print $3 }' "$AP_TESTBED_DIR/sites"; }

# In a site: its own network and host name, the device, the others.
check "host name" test "$("$bed/in" right:1 hostname)" = right-1
check "by host name" test "$("$bed/in" right-1 hostname)" = right-1
check "address" test "$("$bed/in" address far)" = 10.77.0.3
check "device" grep -q wan0 <("$bed/in" left cat /proc/net/dev)
check "only its own devices" test "$("$bed/in" left cat /proc/net/dev | tail -n +3 | wc -l)" = 2
expect 7 "" "$bed/in" left sh -c 'exit 7'
"$bed/in" far "$probe" serve 60 > "$TMPDIR/server" &
server=$!
disown
for ((i = 0; i < 100; i++)); do grep -qs ready "$TMPDIR/server" && break; sleep 0.05; done
expect 0 "sent 3 received 3" "$bed/in" left "$probe" ping 10.77.0.3 3 20
"$bed/ctl" cut far '*'
expect 0 "sent 2 received 0" "$bed/in" left "$probe" ping 10.77.0.3 2 20
"$bed/ctl" heal far '*'

# Mistakes.
expect 2 "runs in $AP_TESTBED_DIR already" "$bed/up" "$matrix"
expect 3 'no site "lefd"' "$bed/in" lefd true
expect 3 'no site "lefd" (did you mean "left"?)' "$bed/ctl" cut lefd far
expect 3 'no command "stat" (did you mean "stats"?)' "$bed/ctl" stat
expect 3 'no parameter "delay" (did you mean "delay_ms"?)' "$bed/ctl" set left far delay=4
printf '1 cut left far\n2 cut left fat\n' > "$TMPDIR/scenario"
expect 3 "$TMPDIR/scenario:2:12: no site \"fat\" (did you mean \"far\"?)" "$bed/ctl" scenario "$TMPDIR/scenario"
expect 4 "no test bed" "$bed/ctl" --dir "$TMPDIR/none" stats
expect 0 "" "$bed/down" --dir "$TMPDIR/none"
printf 'src,dst,delay_ms\na,b,1\nb,c,x\n' > "$TMPDIR/bad.csv"
expect 3 "$TMPDIR/bad.csv:3:5: delay_ms must be a number from 0 to 60000, not 'x'" "$bed/up" --dir "$TMPDIR/bed2" "$TMPDIR/bad.csv"
expect 3 "$TMPDIR/scenario:2:12" "$bed/up" --dir "$TMPDIR/bed2" --scenario "$TMPDIR/scenario" "$matrix"
printf 'src,dst,delay_ms\na.b,a-b,1\n' > "$TMPDIR/twins.csv"
expect 3 "the same host name a-b" "$bed/up" --dir "$TMPDIR/bed2" --hostnames "$TMPDIR/twins.csv"
expect 2 "--seconds 0: a number" "$bed/up" --dir "$TMPDIR/bed2" --seconds 0 "$matrix"
check "nothing made by mistakes" test ! -e "$TMPDIR/bed2"

# A second bed beside it is another network with the same addresses.
expect 0 "" "$bed/up" --dir "$TMPDIR/bed2" --seconds 60 "$matrix"
expect 0 "sent 1 received 0" env AP_TESTBED_DIR="$TMPDIR/bed2" "$bed/in" left "$probe" ping 10.77.0.3 1 20
expect 0 "" "$bed/down" --dir "$TMPDIR/bed2"
expect 0 "sent 1 received 1" "$bed/in" left "$probe" ping 10.77.0.3 1 20

# down ends what runs in the sites, also what left its session and its parent.
"$bed/in" left setsid sh -c 'trap "" TERM HUP; echo $$ > '"$TMPDIR"'/stubborn; while :; do sleep 1; done' 2> /dev/null &
disown
for ((i = 0; i < 100; i++)); do [ -s "$TMPDIR/stubborn" ] && break; sleep 0.05; done
mapfile -t all < <(holders)
all+=("$server" "$(cat "$TMPDIR/stubborn")" "$(emulator)")
expect 0 "" "$bed/down"
for pid in "${all[@]}"; do check "process $pid gone" gone "$pid"; done
check "folder gone" test ! -e "$AP_TESTBED_DIR"

# A killed emulator: its sites go at once, programs in them and the folder with `down`.
expect 0 "" "$bed/up" --seconds 100 "$matrix"
"$bed/in" left env -i "$(command -v sleep)" 300 & # without the bed's mark: alone keeps its network alive
unmarked=$!
disown
"$bed/in" far sleep 300 &
marked=$!
disown
sleep 0.2
mapfile -t all < <(holders)
kill -KILL "$(emulator)"
for pid in "${all[@]}"; do check "holder $pid gone" gone "$pid"; done
expect 4 "was killed" "$bed/in" left true
expect 4 "no test bed answers" "$bed/ctl" stats
expect 0 "" "$bed/down"
check "program gone" gone "$marked"
check "a process that is not known to be the bed's lives" test -d "/proc/$unmarked"
kill "$unmarked"
check "folder gone" test ! -e "$AP_TESTBED_DIR"

# A new one starts where one was killed; it ends by itself, with all that runs in it.
expect 0 "" "$bed/up" --seconds 100 "$matrix"
kill -KILL "$(emulator)"
check "killed" gone "$(emulator)"
expect 0 "" "$bed/up" --seconds 1 "$matrix"
"$bed/in" left sleep 300 &
disown
all=("$!" "$(emulator)")
for pid in "${all[@]}"; do check "process $pid gone after its time" gone "$pid"; done
check "folder gone after its time" test ! -e "$AP_TESTBED_DIR"

# Large packets count as the segments they stand for: 1500 bytes on the line for 1448 of payload.
expect 0 "" "$bed/up" --seconds 60 --offload "$matrix"
"$bed/in" far "$probe" serve 60 > "$TMPDIR/server" &
disown
for ((i = 0; i < 100; i++)); do grep -qs ready "$TMPDIR/server" && break; sleep 0.05; done
sent=$("$bed/in" left "$probe" stream 10.77.0.3 1 | awk '$1 == "mbit" { print $6 }')
stats=$("$bed/ctl" stats)
line=$(sed -n 's/^link left far .* bytes=\([0-9]*\) .*/\1/p' <<< "$stats")
packets=$(sed -n 's/^link left far .* passed=\([0-9]*\) .*/\1/p' <<< "$stats")
check "$line bytes on the line for $sent" awk "BEGIN { exit !($line > 1.03 * $sent && $line < 1.1 * $sent) }"
check "$packets packets are large ones" awk "BEGIN { exit !($packets * 1500 < $line) }"
finish
