#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs one libFuzzer target for some seconds; its output goes to ENV-DIR/check-logs/fuzz_NAME.log, its exit code is ours.
# usage: fuzz_one.sh TREE ENV-DIR SECONDS TARGET
set -u
tree=$1 env=$2 seconds=$3 target=$4
name=$(basename "$target")
corpus=$env/fuzz-corpus/$name
logs=$env/check-logs
mkdir -p "$corpus"
LSAN_OPTIONS=suppressions=$tree/tests/fuzz/lsan.supp:print_suppressions=0 \
    "$target" "-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 "-artifact_prefix=$logs/" "$corpus" \
    "$tree/tests/fuzz/corpus/${name#fuzz_}" > "$logs/$name.log" 2>&1 < /dev/null
