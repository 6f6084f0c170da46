#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode ckpt ls, verify, diff and export, on good states and on damaged ones; exit codes and messages.
set -u
make_state=$AP_BUILDDIR/tests/support/ckpt_make
dir=$TMPDIR/ckpt
failures=0

# expect CODE TEXT CMD...: exit code and a text that the output must hold.
expect()
{
    local want=$1 text=$2 out code=0
    shift 2
    out=$("$@" 2>&1 < /dev/null) || code=$?
    if [ $code != "$want" ] || ! grep -qF -- "$text" <<< "$out"; then
        echo "FAIL: exit $code, not $want, or no '$text': $*"
        sed 's/^/    /' <<< "$out"
        failures=$((failures + 1))
    fi
}

"$make_state" "$dir" 2 100 1 || exit 99
"$make_state" "$dir" 3 200 2 best || exit 99
"$make_state" "$dir" 1 300 1 || exit 99

expect 0 'step-000000000200 (best)' antipode ckpt ls "$dir"
[ "$(antipode ckpt ls "$dir" --json | tr -d ' \n' | grep -o '"step":[0-9]*' | tr '\n' ' ')" = '"step":300 "step":200 "step":100 ' ] ||
    { echo "FAIL: order of ls"; failures=$((failures + 1)); }
expect 0 '"best": true' antipode ckpt ls "$dir" --json
expect 3 "$TMPDIR/none" antipode ckpt ls "$TMPDIR/none"
expect 2 "did you mean 'verify'" antipode ckpt verfy "$dir"
expect 2 'takes 2 paths' antipode ckpt diff "$dir"

expect 0 "ok     $dir/step-000000000200" antipode ckpt verify "$dir"
expect 0 '"ok": true' antipode ckpt verify "$dir/step-000000000100" --json

# States 100 and 300 hold the same version, from 2 ranks and from 1.
expect 0 '0 differ' antipode ckpt diff "$dir/step-000000000100" "$dir"
expect 7 'param/model.norm.weight' antipode ckpt diff "$dir/step-000000000100" "$dir/step-000000000200"
[ "$(antipode ckpt diff "$dir/step-000000000100" "$dir/step-000000000200" 2> /dev/null | cut -d ' ' -f 1 | sed -n '1p;3p;4p')" = \
    "$(printf '%s\n' param/model.embed_tokens.weight param/model.norm.weight param/big.rows)" ] ||
    { echo "FAIL: order of diff"; failures=$((failures + 1)); }
expect 7 '"largest":' antipode ckpt diff "$dir/step-000000000100" "$dir/step-000000000200" --json

# The same in slabs of columns, from 2 ranks.
"$make_state" "$TMPDIR/columns" 2 100 1 columns || exit 99
expect 0 "ok     $TMPDIR/columns/step-000000000100" antipode ckpt verify "$TMPDIR/columns"
expect 0 ' 0 differ' antipode ckpt diff "$TMPDIR/columns" "$dir"
expect 0 ' 0 differ' antipode ckpt diff "$dir" "$TMPDIR/columns"
expect 7 'param/big.rows' antipode ckpt diff "$TMPDIR/columns" "$dir/step-000000000200"
cp -r "$TMPDIR/columns/step-000000000100" "$TMPDIR/later"
tail -n +2 "$TMPDIR/later/manifest.json" | sed 's/"version":2/"version":3/' > "$TMPDIR/body"
{ printf '{"xxh3_128":"%s",\n' "$(printf 0%.0s {1..32})"; cat "$TMPDIR/body"; } > "$TMPDIR/later/manifest.json"
expect 3 'its hash does not fit' antipode ckpt verify "$TMPDIR/later"
sed '1s/^/{/' "$TMPDIR/body" > "$TMPDIR/later/manifest.json"
expect 3 'format version 3, this program reads versions 1 and 2' antipode ckpt verify "$TMPDIR/later"

# The fixture says no model: export must name what is missing, and leave no half-made file.
expect 3 'which model' antipode ckpt export "$dir" "$TMPDIR/out"
[ ! -e "$TMPDIR/out/model.safetensors" ] || { echo "FAIL: export left a file"; failures=$((failures + 1)); }

# Damage: named by file; the directory is checked to its end.
printf 'X' | dd of="$dir/step-000000000200/rank-00001.h5" bs=1 seek=3000 conv=notrunc status=none
expect 3 'step-000000000200/rank-00001.h5: damaged checkpoint file' antipode ckpt verify "$dir"
expect 3 "ok     $dir/step-000000000100" antipode ckpt verify "$dir"
expect 3 '"ok": false' antipode ckpt verify "$dir/step-000000000200" --json
rm "$dir/step-000000000100/manifest.json"
expect 3 'manifest is missing' antipode ckpt verify "$dir/step-000000000100"

[ $failures = 0 ] || exit 1
