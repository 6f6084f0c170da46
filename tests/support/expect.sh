#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# For script tests: expectations that count failures. Source it; end with `finish`.
failures=0
checks=0

# expect CODE TEXT CMD...: exit code and a text that standard output or error must hold; both stay in $out.
expect()
{
    local want=$1 text=$2 code=0
    shift 2
    checks=$((checks + 1))
    out=$("$@" 2>&1 < /dev/null) || code=$?
    if [ "$code" != "$want" ] || ! grep -qF -- "$text" <<< "$out"; then
        printf 'FAIL: exit %s, not %s, or no "%s": %s\n' "$code" "$want" "$text" "$*"
        sed 's/^/    /' <<< "$out" | head -n 20
        failures=$((failures + 1))
    fi
}

# check TEXT CMD...: the command must succeed.
check()
{
    local text=$1
    shift
    checks=$((checks + 1))
    "$@" || {
        printf 'FAIL: %s: %s\n' "$text" "$*"
        failures=$((failures + 1))
    }
}

finish()
{
    printf '%s checks, %s failures\n' "$checks" "$failures"
    [ "$failures" = 0 ]
    exit
}
