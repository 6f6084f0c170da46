#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The man pages and the completion in the tree are what the program makes of its tables; roff has no warnings; the
# completion completes.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99

expect 0 '' antipode generate-docs made
for file in made/man/* made/contrib/completion/*; do
    name=${file#made/}
    check "$name is out of date: run antipode generate-docs in the tree" diff -u "$AP_SRCDIR/$name" "$file"
done
made=(made/man/*)
kept=("$AP_SRCDIR"/man/*.[15])
check 'pages of verbs that are gone' test ${#made[@]} = ${#kept[@]}
for verb in $(antipode help | awk '/^  [a-z]/ { print $1 }'); do
    check "man page of $verb" test -s "made/man/antipode-$verb.1"
done
check 'a page describes every option' grep -q 'optim.warmup_steps' made/man/antipode-job.5

if command -v groff > /dev/null; then
    for page in made/man/*; do
        warnings=$(groff -ww -man -Tutf8 "$page" 2>&1 > /dev/null)
        check "$page: $warnings" test -z "$warnings"
    done
fi

# complete WORD...: what bash offers for the last word.
complete_words()
{
    bash -c '
        # shellcheck disable=SC1090
        . "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _antipode 2> /dev/null
        echo "${COMPREPLY[*]}"' x made/contrib/completion/antipode "$@"
}
check 'verbs' test "$(complete_words antipode pl)" = plan
check 'flags' test "$(complete_words antipode plan --co)" = --count
check 'keys of --set' test "$(complete_words antipode train --set optim.warm)" = optim.warmup_steps=
check 'values of --set' test "$(complete_words antipode train --set optim.schedule = co)" = 'constant cosine'
check 'values after =' test "$(complete_words antipode train --set checkpoint.resume =)" = 'true false auto'
check 'actions of ckpt' test "$(complete_words antipode ckpt v)" = verify
check 'files' test "$(complete_words antipode train mad)" = made
finish
