#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the test bed's scripts share. Source it.
# AP_TESTBED_DIR: the bed's folder. AP_BUILDDIR: the build tree (default: the current folder, else the source tree).
: "${AP_TESTBED_DIR:=/tmp/ap-testbed-$(id -u)}"
export AP_TESTBED_DIR
testbed_scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

testbed_die()
{
    echo "testbed: $1" >&2
    exit "${2:-2}"
}

# testbed_start ARG...: for tests: the bed, as `up` makes it; skipped with its reason where it is not allowed.
testbed_start()
{
    local code=0 message
    message=$("$testbed_scripts/up" "$@" 2>&1 > /dev/null) || code=$?
    [ $code != 4 ] || { echo "SKIP: $message"; exit 77; }
    [ $code = 0 ] || { echo "$message"; exit 1; }
}

# testbed_program NAME: path of a built program.
testbed_program()
{
    local tree
    for tree in "${AP_BUILDDIR:-.}" "$testbed_scripts/../.."; do
        if [ -x "$tree/tests/testbed/$1" ] && [ ! -d "$tree/tests/testbed/$1" ]; then
            echo "$tree/tests/testbed/$1"
            return 0
        fi
    done
    testbed_die "no $1 in ${AP_BUILDDIR:-.}: make $1 first (make tests/testbed/$1), or set AP_BUILDDIR" 4
}

# testbed_site NAME FIELD: of a site's line in the bed's list, by site or host name. Fields: 2 name, 3 process, 4 inode,
# 5 address, 6 host name.
testbed_site()
{
    [ -r "$AP_TESTBED_DIR/sites" ] || testbed_die "no test bed runs in $AP_TESTBED_DIR: start one by tests/testbed/up" 4
    local value
    value=$(awk -v name="$1" -v field="$2" '$1 == "site" && ($2 == name || $6 == name) { print $field; exit }' "$AP_TESTBED_DIR/sites")
    [ -n "$value" ] || testbed_die "no site \"$1\"; there are: $(awk '$1 == "site" { printf "%s ", $2 }' "$AP_TESTBED_DIR/sites")" 3
    echo "$value"
}

# testbed_fact NAME: id, user (1: a user namespace is in use) or hostnames (1: sites have their own).
testbed_fact()
{
    awk -v fact="$1" '$1 == "bed" { if (fact == "id") print $2; for (i = 3; i < NF; i += 2) if ($i == fact) print $(i + 1); exit }' \
        "$AP_TESTBED_DIR/sites"
}
