#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode routes: its table, its JSON, and what it says about tables that are wrong.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99
wan=$AP_SRCDIR/inputs/wan

expect 0 'achieved/bound 1.0000' antipode routes --topology "$wan/aws12.csv"
expect 0 'quickest: trees' antipode routes --topology "$wan/aws12.csv" --bytes 1G
expect 0 'quickest: latency_tree' antipode routes --topology "$wan/aws12.csv" --bytes 1000
expect 0 'bound over best ring 1.234' antipode routes --topology "$wan/aws12.csv"
expect 0 '12 sites, pair caps, additive codec, links by direction' antipode routes --topology "$wan/aws12.csv" --caps pair
expect 0 'opaque parts cannot be summed on the way' antipode routes --topology "$wan/aws8.csv" --codec opaque

# An unknown round trip: the link carries data, times over it are unknown, the latency tree goes around it.
expect 0 'links the same both ways' antipode routes --topology "$wan/three-sites.csv"
expect 0 'delay unknown' antipode routes --topology "$wan/three-sites.csv" --caps pair
printf 'src,dst,rtt_ms,gbit_per_s\na,b,,1\n' > unknown.csv
expect 0 'the known round trips do not join all sites' antipode routes --topology unknown.csv
expect 0 '"latency_tree": null' antipode routes --topology unknown.csv --json
expect 0 '"trees": null' antipode routes --topology unknown.csv --json

# Mistakes: the place, the reason, the fix.
expect 2 '--topology is missing' antipode routes
expect 2 "antipode routes has no option --topolgy (did you mean --topology?)" antipode routes --topolgy x
expect 2 "caps" antipode routes --topology "$wan/aws8.csv" --caps link
expect 2 'bytes must be an integer from 1' antipode routes --topology "$wan/aws8.csv" --bytes 0
expect 3 'none.csv' antipode routes --topology none.csv
expect 3 'this is a directory' antipode routes --topology .
printf 'src,dst,rtt_sm,gbit_per_s\na,b,1,1\n' > bad.csv
expect 3 "bad.csv:1:9: there is no column 'rtt_sm' (did you mean 'rtt_ms'?)" antipode routes --topology bad.csv
printf 'src,dst,rtt_ms,gbit_per_s\na,b,1,1\nc,d,1,1\n' > apart.csv
expect 3 "apart.csv: no path leads from site 'a' to site 'c' (add the missing links, or take out a site)" antipode routes --topology apart.csv
printf 'src,dst,rtt_ms,gbit_per_s\na,b,1,1\nb,a,1,1\nb,c,1,1\n' > oneway.csv
expect 3 "no path leads from site 'c' to site 'a' (lines are single directions here" antipode routes --topology oneway.csv
printf 'src,dst,rtt_ms,gbit_per_s\na,a,1,1\n' > one.csv
expect 3 "one.csv:2:3: a link from 'a' to itself" antipode routes --topology one.csv
printf 'src,dst,rtt_ms,gbit_per_s\n' > none.csv
expect 3 'there are no links, so there are not two sites' antipode routes --topology none.csv
printf 'src,dst,rtt_ms,gbit_per_s\na,b,1,fast\n' > word.csv
expect 3 "word.csv:2:7: gbit_per_s must be a number from 1e-06 to 1e+06, not 'fast'" antipode routes --topology word.csv

# The JSON holds what docs/formats-wan.md says, and its parts agree.
if command -v jq > /dev/null; then
    for caps in site pair; do
        antipode routes --topology "$wan/aws12.csv" --caps $caps --json > r.json
        # shellcheck disable=SC2016 # $sum and $n are jq's
        check "JSON, $caps caps" jq -e '
            (.trees | map(.gbit_per_s) | add) as $sum | (.sites | length) as $n |
            .format == "antipode-routes" and .version == 1 and .achieved_over_bound >= 0.95 and .achieved_over_bound <= 1.0000001 and
            ((.gbit_per_s / $sum - 1) | fabs) < 1e-9 and
            ((.gbit_per_s / .bound_gbit_per_s / .achieved_over_bound - 1) | fabs) < 1e-9 and
            ((.bound_gbit_per_s / .best_ring.gbit_per_s / .bound_over_best_ring - 1) | fabs) < 1e-9 and
            (.trees | length) <= 4 * $n and (.best_ring.order | sort) == (.sites | sort) and
            all(.trees[]; (.in | length) == $n - 1 and (.out | length) == $n - 1) and
            (.predicted_s | .trees > 0 and .latency_tree > 0 and .best_ring > 0) and
            (.certificate.links | length) + (.certificate.egress | length) > 0' r.json > /dev/null
    done
    antipode routes --topology "$wan/aws12.csv" --json > a.json
    antipode routes --topology "$wan/aws12.csv" --json > b.json
    check 'the same twice' cmp a.json b.json
else
    echo 'not checked: the JSON, for lack of jq'
fi
finish
