#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names of the Debian packages whose shared libraries the programs under a folder load, one a line.
# usage: runtime_packages.sh FOLDER
set -eu
find "$1" -type f -perm /111 -exec ldd {} + 2> /dev/null |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    while read -r file; do
        # dpkg knows a library by its path in /usr or, on merged systems, without it.
        dpkg-query -S "$file" 2> /dev/null || dpkg-query -S "/usr$file" 2> /dev/null || dpkg-query -S "$(readlink -f "$file")"
    done | sed -e '/^diversion by/d' -e 's/:.*//' | sort -u
