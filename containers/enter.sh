#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Inside a private mount namespace: bind the host's file systems into the root ($1) and run a command there.
# usage: enter.sh ROOT TREE CMD...   (TREE: the checkout, reachable inside under its own path)
set -eu
root=$1
tree=$2
shift 2
here=$PWD

# bind SOURCE: make it visible inside under the same path.
bind()
{
    [ -d "$1" ] || return 0
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
}

# The kernel's own trees, and every directory that is not part of an operating system: home directories, scratch and
# data file systems keep their paths.
for dir in /*; do
    case $dir in
    /bin | /boot | /etc | /lib* | /lost+found | /sbin | /usr | /var | /run) ;;
    *) [ -L "$dir" ] || bind "$dir" ;;
    esac
done
for dir in "$tree" "$here"; do
    [ "$root$dir" -ef "$dir" ] || bind "$dir"
done
# The CUDA toolkit of the host, when there is one.
for dir in /usr/local/cuda*; do
    if [ -L "$dir" ]; then
        ln -sfn "$(readlink "$dir")" "$root$dir"
    else
        bind "$dir"
    fi
done
for file in /etc/resolv.conf /etc/hosts; do
    [ -e "$file" ] || continue
    [ -e "$root$file" ] || : > "$root$file"
    mount --bind "$(readlink -f "$file")" "$root$file"
done
exec chroot "$root" /usr/bin/env -C "$here" "$@"
