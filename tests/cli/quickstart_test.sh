#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ./quickstart without building anything: command line, package lists, finding the host's mirror, and what it says to
# someone who lacks a package or a right. The whole of it is what runs this test.
set -u
failures=0
work=$TMPDIR/clone
mkdir -p "$work"
cp -r "$AP_SRCDIR/quickstart" "$AP_SRCDIR/containers" "$work/"
chmod -R u+w "$work"
cd "$work" || exit 99
unset ANTIPODE_ENV ANTIPODE_MIRROR

fail()
{
    echo "FAIL: $*"
    failures=$((failures + 1))
}

# expect CODE TEXT CMD...: exit code and a text that the output must hold.
expect()
{
    local want=$1 text=$2 out code=0
    shift 2
    out=$("$@" 2>&1 < /dev/null) || code=$?
    [ $code = "$want" ] || fail "exit $code, not $want: $*: $out"
    grep -qF -- "$text" <<< "$out" || fail "no '$text' from: $*: $out"
}

# equal WANT CMD...
equal()
{
    local want=$1 got
    shift
    got=$("$@" 2>&1)
    [ "$got" = "$want" ] || fail "'$got', not '$want': $*"
}

# ---- command line
expect 0 'quickstart run CMD' ./quickstart --help
expect 2 'unknown command "chek"' ./quickstart chek
expect 2 'usage:' ./quickstart run
expect 4 'must be native or root' env ANTIPODE_ENV=docker ./quickstart run true
[ ! -e .env/build ] || fail "a mistake on the command line built something"

# ---- package lists: one valid name a line, none twice
# shellcheck source=quickstart
. ./quickstart
listed=$(packages packages.run packages.check packages.corpus)
[ "$(wc -l <<< "$listed")" -gt 30 ] || fail "too few packages: $listed"
bad=$(grep -vE '^[a-z0-9][a-z0-9.+-]+$' <<< "$listed") && fail "not a package name: $bad"
twice=$(sort <<< "$listed" | uniq -d)
[ -z "$twice" ] || fail "listed twice: $twice"

# ---- the mirror of this host's apt
apt=$TMPDIR/apt
mkdir -p "$apt/sources.list.d"
equal '' host_mirror "$apt" bookworm
cat > "$apt/sources.list" << 'EOF'
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] http://one.example/debian bookworm contrib main
deb http://security.example/debian-security bookworm-security main
EOF
equal http://one.example/debian host_mirror "$apt" bookworm
equal '' host_mirror "$apt" bullseye
rm "$apt/sources.list"
cat > "$apt/sources.list.d/debian.sources" << 'EOF'
# A comment.
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Types: deb deb-src
URIs: http://two.example/debian http://second.example/debian
Suites: bookworm bookworm-updates
Components: main non-free
EOF
cat > "$apt/sources.list.d/aaa.sources" << 'EOF'
Types: deb
URIs: http://third-party.example/apt
Suites: bookworm
Components: stable
EOF
equal http://two.example/debian host_mirror "$apt" bookworm
ANTIPODE_MIRROR=http://given.example/debian equal http://given.example/debian host_mirror "$apt" bookworm

# ---- what an ordinary user without the tools is told: the exact packages and the command
bin=$TMPDIR/bin
mkdir "$bin"
for tool in bash env sed awk cat dirname readlink mkdir grep sort comm flock mount unshare chroot tar dpkg-query; do
    ln -s "$(PATH=$PATH:/usr/sbin command -v $tool)" "$bin/$tool" 2> /dev/null || fail "this test needs $tool"
done
# shellcheck disable=SC2016 # expanded by the script that is written
printf '#!/bin/sh\ncase $1 in -un) echo nosuchuser ;; *) echo 4242 ;; esac\n' > "$bin/id"
chmod 755 "$bin/id"
# Their own PATH comes first and quickstart appends only /usr/sbin and /sbin, where neither tool lives.
expect 4 'sudo apt-get install mmdebstrap uidmap' env PATH="$bin" ANTIPODE_ENV=root ./quickstart run true
printf '#!/bin/sh\nexit 1\n' | tee "$bin/mmdebstrap" > "$bin/newuidmap"
chmod 755 "$bin/mmdebstrap" "$bin/newuidmap"
if [ -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
    expect 4 'usermod --add-subuids' env PATH="$bin" ANTIPODE_ENV=root ./quickstart run true
fi
# Natively: the packages of the list that are not installed, by name.
rm "$bin/dpkg-query" && printf '#!/bin/sh\n' > "$bin/dpkg-query" && chmod 755 "$bin/dpkg-query"
expect 4 'sudo apt-get install autoconf' env PATH="$bin" ANTIPODE_ENV=native ./quickstart run true

# ---- a failed mmdebstrap shows its log and leaves no half root behind
printf '#!/bin/sh\necho 0\n' > "$bin/id"
printf '#!/bin/sh\necho E: mirror on fire >&2\nexit 25\n' > "$bin/mmdebstrap"
for tool in tail rm true; do ln -sf "$(type -P $tool)" "$bin/$tool"; done
if unshare --mount true 2> /dev/null; then
    [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
        expect 4 'E: mirror on fire' env PATH="$bin" ANTIPODE_ENV=root ./quickstart run true
fi
if [ -e .env/root ] || [ -e .env/root.packages ]; then fail "a failed build left a root behind"; fi

[ $failures = 0 ] && echo "quickstart: as expected"
exit $((failures > 0))
