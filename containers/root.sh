# SPDX-License-Identifier: Apache-2.0
# Makes and enters the Debian 13 root under .env/ (sourced by ./quickstart; runs on the host).
#
# As root the tree is made and entered with plain chroot inside a private mount namespace: no mount is visible outside,
# none is left behind, and several commands may be inside at once. An ordinary user gets the same through a user
# namespace in which the user is root and the ids of /etc/subuid are the other users.
# shellcheck shell=bash disable=SC2154 # top, env_dir and build_dir are quickstart's

suite=trixie
root_dir=$env_dir/root

# Run a command as (real or mapped) root in a private mount namespace.
in_namespace()
{
    if [ "$(id -u)" = 0 ]; then
        unshare --mount --propagation private -- "$@"
    else
        unshare --user --map-root-user --map-auto --mount --propagation private -- "$@"
    fi
}

# Say what is missing before anything is tried, with the command that mends it.
root_requirements()
{
    local missing=() tool me
    command -v mmdebstrap > /dev/null || missing+=(mmdebstrap)
    if [ "$(id -u)" != 0 ]; then
        command -v newuidmap > /dev/null || missing+=(uidmap)
    fi
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    for tool in unshare:util-linux flock:util-linux mount:mount chroot:coreutils tar:tar; do
        command -v "${tool%:*}" > /dev/null || missing+=("${tool#*:}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
            say "installing ${missing[*]} on this system (needed to build the environment)"
            { apt_quiet update && apt_quiet install -y --no-install-recommends "${missing[@]}"; } > "$env_dir/apt.log" 2>&1 \
                || die "apt-get could not install ${missing[*]}; its output is in $env_dir/apt.log"
        else
            die "these packages are missing: ${missing[*]}" "sudo apt-get install ${missing[*]}"
        fi
    fi
    if [ "$(id -u)" = 0 ]; then
        unshare --mount --propagation private -- true 2> /dev/null ||
            die "this system does not let root mount (a container without CAP_SYS_ADMIN?)" \
                "start the container with --privileged, or use a Debian 13 image, where nothing needs to be mounted"
        return
    fi
    me=$(id -un)
    if ! grep -q "^\($me\|$(id -u)\):" /etc/subuid 2> /dev/null || ! grep -q "^\($me\|$(id -u)\):" /etc/subgid 2> /dev/null; then
        die "user $me has no range of subordinate ids in /etc/subuid and /etc/subgid" \
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $me"
    fi
    in_namespace true 2> /dev/null ||
        die "this kernel does not let an ordinary user make user namespaces" \
            "sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0   (those that exist)"
}

# host_mirror APT-DIR RELEASE: the mirror that this apt configuration takes the main section of the release from, empty
# when there is none (mmdebstrap then takes its default).
host_mirror()
{
    [ -z "${ANTIPODE_MIRROR:-}" ] || { echo "$ANTIPODE_MIRROR"; return; }
    local dir=$1 release=$2 file files=()
    for file in "$dir"/sources.list.d/*.sources "$dir"/sources.list.d/*.list "$dir/sources.list"; do
        [ ! -r "$file" ] || files+=("$file")
    done
    [ ${#files[@]} -gt 0 ] || return 0
    # One line per source: URI, suite, components. The archive is the one that carries the host's own release.
    awk '
        function emit() { if (uris != "" && enabled) print uris, suites, components; uris = suites = components = ""; enabled = 1 }
        FNR == 1 { emit() }
        /^[[:space:]]*#/ { next }
        FILENAME ~ /\.list$/ {
            if ($1 != "deb") next
            line = $0; sub(/\[[^]]*\]/, "", line); n = split(line, f, " ")
            uris = f[2]; suites = f[3]; components = ""
            for (i = 4; i <= n; i++) components = components "," f[i]
            emit(); next
        }
        /^[[:space:]]*$/ { emit(); next }
        tolower($1) == "types:" { enabled = enabled && ($0 ~ /deb([[:space:]]|$)/); next }
        tolower($1) == "enabled:" { if (tolower($2) == "no") enabled = 0; next }
        tolower($1) == "uris:" { uris = $2; next }
        tolower($1) == "suites:" { $1 = ""; gsub(/ +/, ",", $0); suites = substr($0, 2); next }
        tolower($1) == "components:" { $1 = ""; gsub(/ +/, ",", $0); components = substr($0, 2); next }
        END { emit() }
    ' "${files[@]}" | awk -v release="$release" '
        ("," $2 ",") ~ ("," release ",") && ("," $3 ",") ~ /,main,/ { print $1; exit }'
}

# apt options of this host that a download needs as well: proxies, and checks switched off for frozen mirrors.
host_apt_options()
{
    command -v apt-config > /dev/null || return 0
    apt-config dump | grep -Ei '^Acquire::(https?::proxy|https?::proxy::|check-valid-until|check-date)' || true
}

# Build the root with the given packages. Takes about a minute; an interrupted one leaves only root.new behind.
root_build()
{
    local include options=() line target=$env_dir/root.new log=$env_dir/root.log
    include=$(IFS=,; echo "$*")
    while IFS= read -r line; do
        [ -z "$line" ] || options+=(--aptopt="$line")
    done < <(host_apt_options)
    options+=(--variant=apt --include="$include" --keyring=/usr/share/keyrings --skip=cleanup/apt/lists
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"'
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*'
        --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='force-unsafe-io')
    local mirror=''
    [ "$(os_release ID)" != debian ] || mirror=$(host_mirror /etc/apt "$(os_release VERSION_CODENAME)")
    say "building a Debian 13 environment in ${root_dir#"$PWD"/} with $# packages (about a minute; log: ${log#"$PWD"/})"
    [ -e "$target" ] && in_namespace rm -rf --one-file-system "$target"
    if [ "$(id -u)" = 0 ]; then
        mmdebstrap --mode=root "${options[@]}" $suite "$target" ${mirror:+"$mirror"} > "$log" 2>&1 < /dev/null
    else
        mkdir "$target" && (
            set -o pipefail
            mmdebstrap --mode=unshare --format=tar "${options[@]}" $suite - ${mirror:+"$mirror"} 2> "$log" < /dev/null |
                in_namespace tar -C "$target" -x --numeric-owner --exclude='./dev/*' 2>> "$log"
        )
    fi || {
        tail -n 15 "$log" >&2
        die "mmdebstrap failed; the whole log is in $log" "if the mirror is at fault: ANTIPODE_MIRROR=URL ./quickstart"
    }
    # Nothing may start a service in there when a package is installed later.
    in_namespace sh -c "printf '#!/bin/sh\nexit 101\n' > '$target/usr/sbin/policy-rc.d' && chmod 755 '$target/usr/sbin/policy-rc.d'"
    [ -e "$root_dir" ] && in_namespace rm -rf --one-file-system "$root_dir"
    mv "$target" "$root_dir"
}

# Run a command inside, in the current directory. The environment of the caller goes along.
root_exec()
{
    PATH=$build_dir:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin in_namespace bash "$top/containers/enter.sh" "$root_dir" "$top" "$@"
}

# Install packages into the root that exists.
root_add()
{
    say "adding $# packages to the environment (log: .env/root.log)"
    root_exec sh -c 'apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }' \
        sh "$@" >> "$env_dir/root.log" 2>&1 < /dev/null || {
        tail -n 15 "$env_dir/root.log" >&2
        die "apt-get failed inside the environment; the log is in $env_dir/root.log" "./quickstart clean, then try again"
    }
}
