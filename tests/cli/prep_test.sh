#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode prep from the command line: files, lines and manual pages in, datasets, table and prep.json out; a repeat
# does nothing; exit codes and messages of mistakes, an unwritable and a full disk among them.
set -u
failures=0
work=$TMPDIR/prep
mkdir -p "$work/text/sub" "$work/man/man1" "$work/man/fr/man1" && cd "$work" || exit 99

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

check()
{
    "$@" || { echo "FAIL: $*"; failures=$((failures + 1)); }
}

for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    printf 'text number %s\n' "$i" > "text/sub/$i.txt"
    printf '{"text": "line %s"}\n' "$i"
done > lines.jsonl
printf '.TH X 1\n.SH NAME\nx \\- a thing\n' > man/man1/x.1
printf '.TH X 1\n.SH NOM\nx \\- une chose\n' > man/fr/man1/x.1

expect 0 'written to out' antipode prep --out out text lines.jsonl --manpages man --language en --valid-fraction 0.2
expect 0 'unchanged: out' antipode prep --out out text lines.jsonl --manpages man --language en --valid-fraction 0.2
expect 0 '"documents": 26' antipode prep --out out text lines.jsonl --manpages man --language en --valid-fraction 0.2 --json
for name in train valid en/train en/valid fr/train fr/valid; do
    check test -s "out/$name.idx"
done
check test "$(head -c 7 out/train.idx)" = MMIDIDX
# The hashes in prep.json are those of the files.
sum=$(grep -o '"bin_xxh128": "[0-9a-f]*"' out/prep.json | head -n 1 | cut -d '"' -f 4)
if command -v xxh128sum > /dev/null; then
    check test "$(xxh128sum out/train.bin | cut -d ' ' -f 1)" = "$sum"
fi
# The same documents from another folder give the same bytes.
mv text other
expect 0 'written to again' antipode prep --out again lines.jsonl other --manpages man --language en --valid-fraction 0.2
check cmp out/train.bin again/train.bin
check cmp out/valid.idx again/valid.idx

expect 2 'no input' antipode prep --out out
expect 2 'out' antipode prep other
expect 2 'valid-fraction' antipode prep --out out other --valid-fraction 0.9
expect 2 'did you mean --force' antipode prep --out out other --forse
expect 3 'nowhere' antipode prep --out out nowhere
expect 3 'holds no text' antipode prep --out none --manpages other
expect 3 'nonesuch' antipode prep --out out other --tokenizer nonesuch
printf '{"text": "a"}\n{"text": \n' > bad.jsonl
expect 3 'bad.jsonl:2: not JSON' antipode prep --out none bad.jsonl
expect 3 '--jsonl-key' antipode prep --out none lines.jsonl --jsonl-key body
check test ! -e none/prep.json
check test -s out/prep.json
expect 0 'usage: antipode prep' antipode prep --help

if [ "$(id -u)" = 0 ] && command -v setpriv > /dev/null; then
    mkdir locked && chmod 755 locked . "$TMPDIR"
    expect 4 'Permission denied' setpriv --reuid 65534 --regid 65534 --clear-groups "$(command -v antipode)" prep --out locked/out other
fi
# A full disk: a small file system of our own where we may mount one, else a limit on the size of files.
head -c 3000000 /dev/urandom | base64 > big.txt
if unshare -m --propagation unchanged true 2> /dev/null && mkdir full && unshare -m --propagation unchanged mount -t tmpfs -o size=1m none full 2> /dev/null; then
    # shellcheck disable=SC2016
    expect 4 'No space left' unshare -m --propagation unchanged sh -c 'mount -t tmpfs -o size=5m none full && antipode prep --out full/out big.txt'
else
    # shellcheck disable=SC2016
    expect 4 'File too large' bash -c 'trap "" XFSZ; ulimit -f 5000; antipode prep --out full-out big.txt'
fi
check test ! -e full-out/train.bin

[ "$failures" = 0 ] || { echo "$failures failed"; exit 1; }
