#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command line itself: help, usage errors, the exact counts of plan, schema, doctor.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99

expect 2 'usage: antipode VERB' antipode
expect 0 'usage: antipode VERB' antipode --help
expect 0 'antipode ' antipode --version
expect 2 "there is no verb 'tarin' (did you mean 'train'?)" antipode tarin x
expect 2 "there is no verb 'zzzzzzzz' (antipode --help lists them)" antipode zzzzzzzz
expect 2 'antipode plan has no option --modle (did you mean --model?)' antipode plan --modle x
expect 2 'antipode plan has no option --zzzzzz (antipode plan --help)' antipode plan --zzzzzz
expect 2 '--model needs a value' antipode plan --model
expect 2 'options are written out, with two dashes' antipode plan -m x
expect 2 '--seq-len: seq-len must be an integer from 1 to 16777216' antipode plan --model tiny-v3 --seq-len 0
expect 2 "unexpected 'b'" antipode plan a b
expect 2 'give either a job file or --model NAME' antipode plan
expect 2 'missing operand: JOB' antipode train
expect 2 'antipode train has no option --rerpod (did you mean --reprod?)' antipode train --rerpod j.yaml
expect 2 "ckpt does not know 'lsit'" antipode ckpt lsit x
expect 2 'no input: give files or folders' antipode prep --out x
expect 2 '--out is missing' antipode prep x
expect 2 'antipode-train is started by antipode' antipode-train

# Help of every verb, from either side, shows its usage and ends well.
for verb in $(antipode help | awk '/^  [a-z]/ { print $1 }'); do
    expect 0 "usage: antipode $verb" antipode "$verb" --help
    expect 0 "usage: antipode $verb" antipode help "$verb"
done
check 'a dozen verbs are listed' test "$(antipode help | grep -c '^  [a-z]')" -ge 10
expect 0 'data.seq_len' antipode help job
expect 2 "there is no verb 'jbo' (did you mean 'job'?)" antipode help jbo

# The published numbers, to the last parameter.
count()
{
    antipode plan --model "$1" --count --json | awk -F'[:,]' -v k="\"$2\"" '$1 ~ k { print $2 + 0 }' OFMT=%.0f CONVFMT=%.0f
}
check 'V2-Lite' test "$(count deepseek-v2-lite total)" = 15706484224
check 'V2' test "$(count deepseek-v2 total)" = 235741434880
check 'V3' test "$(count deepseek-v3 total)" = 671026404352
check 'V3 with MTP apart' test "$(count deepseek-v3 mtp)" = 11610067968
check 'quickstart has 5M' test "$(count quickstart total)" -ge 5000000
expect 0 '671,026,404,352' antipode plan --model deepseek-v3
expect 0 '"model": "deepseek-v3"' antipode plan --model "$AP_SRCDIR/inputs/models/deepseek-v3.json" --json
expect 3 "there is no model preset 'deepsek-v3' (did you mean 'deepseek-v3'?)" antipode plan --model deepsek-v3

# JSON outputs are JSON.
if command -v python3 > /dev/null; then
    antipode schema > schema.json
    check 'schema' python3 -c 'import json; s = json.load(open("schema.json")); assert s["properties"]["data"]["required"] == ["train"]'
    antipode doctor --json > doctor.json
    check 'doctor' python3 -c 'import json; assert len(json.load(open("doctor.json"))) >= 8'
fi

# doctor finds what is wrong.
: > afile
expect 4 'fix: export TMPDIR=/tmp' env TMPDIR=afile antipode doctor
expect 4 'FAIL  mpirun         mpirun is not on PATH' env PATH=/nonexistent "$(command -v antipode)" doctor
mkdir -p lone && cp "$(command -v antipode)" lone/
expect 4 'set ANTIPODE_DATADIR' env ANTIPODE_DATADIR=/nonexistent lone/antipode doctor
expect 4 'antipode-train is neither beside this program' lone/antipode doctor

# A reader that goes away is no crash.
expect 0 '' bash -c 'antipode help job | head -n 1'
finish
