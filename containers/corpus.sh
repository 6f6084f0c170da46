#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fetch the manual pages of packages.corpus, unpack them, and turn them into token files. Runs inside the environment,
# in the tree, and does nothing when it is done already.
# usage: corpus.sh CACHE OUT
set -eu
cache=$1
out=$2
here=$(cd "$(dirname "$0")" && pwd)

if [ ! -e "$cache/complete" ] || [ "$here/packages.corpus" -nt "$cache/complete" ]; then
    mapfile -t names < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/packages.corpus")
    printf 'quickstart: fetching manual pages as training text: %s\n' "${names[*]}" >&2
    rm -rf "$cache"
    mkdir -p "$cache/deb" "$cache/pages"
    # apt drops to its own user for downloads, which may not write here.
    (cd "$cache/deb" && { apt-get -qq -o APT::Sandbox::User=root download "${names[@]}" ||
        { apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download "${names[@]}"; }; }) > "$cache/log" 2>&1 < /dev/null || {
        tail -n 5 "$cache/log" >&2
        printf 'quickstart: the text packages could not be fetched\n' >&2
        exit 4
    }
    for deb in "$cache"/deb/*.deb; do
        dpkg-deb -x "$deb" "$cache/pages"
    done
    : > "$cache/complete"
fi
# A balanced mix of three megabytes a language; prep does nothing when its inputs and options are unchanged.
antipode prep --manpages "$cache/pages/usr/share/man" --languages en,de,fr,es,zh_CN --language-bytes 3M --out "$out"
