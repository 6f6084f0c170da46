#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everything that must hold before a change lands: `./quickstart check` runs this inside the environment.
# usage: check_all.sh TREE ENV-DIR [STAGE...]     Ends in "N passed, N failed"; exit 1 when anything failed.
# Each stage is a function stage_NAME; it builds in its own folder under ENV-DIR and shares objects through ccache.
set -u
tree=$1
env=$2
shift 2
here=$tree/tests/support
logs=$env/check-logs
jobs=$(nproc)
passed=0 failed=0 skipped=0
mkdir -p "$logs"
export CCACHE_DIR=$env/ccache CCACHE_BASEDIR=$tree CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content CCACHE_MAXSIZE=2G
cd "$tree" || exit 1

# one NAME OK LOG: a single check. OK is 0 when it passed.
one()
{
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        printf '  pass  %s\n' "$1"
    else
        failed=$((failed + 1))
        printf '  FAIL  %s   (log: %s)\n' "$1" "$3"
        grep -nE 'error|warning:|FAIL|Assertion|ERROR' "$3" | head -n 25
        printf '  ... end of the log:\n'
        tail -n 15 "$3"
    fi
}

# single NAME CMD...: run a command as one check.
single()
{
    local name=$1 log=$logs/${1//[ \/]/-}.log
    shift
    "$@" > "$log" 2>&1 < /dev/null
    one "$name" $? "$log"
}

# build NAME CC OPTION...: configure and build in ENV-DIR/NAME; a failure is one failed check and status 1.
build()
{
    local name=$1 cc=$2 log
    shift 2
    log=$logs/build-$name.log
    CC=$cc bash "$tree/containers/build.sh" "$tree" "$env/$name" "$@" > "$log" 2>&1
    local code=$?
    one "build $name ($*)" $code "$log"
    return $code
}

# tally BUILD: add up the tests of one `make check`. A Criterion program counts its own tests, any other program one.
tally()
{
    local trs result log numbers p=0 f=0 s=0
    while IFS= read -r trs; do
        result=$(sed -n 's/^:test-result: *//p' "$trs" | head -n 1)
        log=${trs%.trs}.log
        numbers=$(sed -n 's/.*Synthesis: Tested: [^0-9]*\([0-9]*\).*Passing: [^0-9]*\([0-9]*\).*Failing: [^0-9]*\([0-9]*\).*Crashing: [^0-9]*\([0-9]*\).*/\2 \3 \4/p' \
            <(sed 's/\x1b\[[0-9;]*m//g' "$log") | tail -n 1)
        case $result in
        SKIP*)
            ! grep -q AP_TEST_QUICK "$log" || continue
            s=$((s + 1))
            printf '  skip  %s: %s\n' "$(basename "${trs%.trs}")" "$(grep -m1 -iE 'skip' "$log" || tail -n 1 "$log")"
            continue
            ;;
        PASS*)
            if [ -n "$numbers" ]; then
                p=$((p + ${numbers%% *}))
            else
                p=$((p + 1))
            fi
            continue
            ;;
        esac
        printf '  FAIL  %s   (log: %s)\n' "$(basename "${trs%.trs}")" "$log"
        tail -n 40 "$log"
        if [ -n "$numbers" ]; then
            read -r ok bad crashed <<< "$numbers"
            p=$((p + ok))
            f=$((f + (bad + crashed > 0 ? bad + crashed : 1)))
        else
            f=$((f + 1))
        fi
    done < <(find "$1" -name '*.trs' | sort)
    printf '  slowest: %s\n' "$(find "$1" -name '*.trs' | sed 's/trs$/log/' | xargs -r grep -H '^run.sh: exit code' 2> /dev/null |
        sed -E 's|.*/([^/]*)\.log:.* ([0-9]+) s|\2 s \1|' | sort -rn | head -n 6 | paste -sd ,)"
    printf '  tests: %d passed, %d failed, %d skipped\n' "$p" "$f" "$s"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ $((p + f)) -gt 0 ] || { failed=$((failed + 1)); printf '  FAIL  no test ran in %s\n' "$1"; }
}

# make_check BUILD LOG [VAR=VALUE...]
make_check()
{
    local dir=$1 log=$2
    shift 2
    find "$dir" -name '*.trs' -delete
    if ! make -C "$dir" -j"$jobs" -s check TESTS= "$@" > "$log" 2>&1 < /dev/null; then
        one "compile the tests in $(basename "$dir")" 1 "$log"
        return 1
    fi
    # One more than there are processors: a test waits now and then.
    make -C "$dir" -j$((jobs + 1)) -k -s check "$@" >> "$log" 2>&1 < /dev/null
    tally "$dir"
}

stage_static()
{
    mapfile -t scripts < <(git -C "$tree" ls-files 2> /dev/null | xargs -r grep -lE '^#!.*\b(ba)?sh' 2> /dev/null)
    [ ${#scripts[@]} -gt 0 ] || mapfile -t scripts < <(find quickstart bench containers contrib tests .ci -type f -exec grep -lE '^#!.*\b(ba)?sh' {} +)
    single shellcheck shellcheck -x -S info "${scripts[@]}"
    single yamllint yamllint -d '{extends: relaxed, rules: {line-length: {max: 160}, comments: disable}}' inputs/*.yaml
    single clang-format bash -c 'find src tests bench -name "*.[ch]" -print0 | xargs -0 clang-format --dry-run --Werror'
}

stage_default()
{
    build build "ccache gcc" && make_check "$env/build" "$logs/check-default.log"
}

stage_tidy()
{
    # One process per file; the flags are those of the build.
    single clang-tidy bash "$here/tidy.sh" "$tree" "$env/build" "$jobs"
}

stage_sanitizer()
{
    build sanitizer "ccache gcc" --enable-sanitizer --without-cuda CFLAGS='-O2 -g' &&
        make_check "$env/sanitizer" "$logs/check-sanitizer.log" AP_TEST_SANITIZED=1
}

stage_fuzz()
{
    TARGET=fuzzers build fuzzer "ccache clang" --enable-fuzzer --enable-sanitizer --without-cuda CFLAGS='-O1 -g' || return
    local target name count=0
    rm -f "$logs"/fuzz_*.code
    # All at once, as many as there are processors.
    for target in "$env"/fuzzer/tests/fuzz/fuzz_*; do
        [ ! -f "$target" ] || [ ! -x "$target" ] || printf '%s\n' "$target"
    done | xargs -r -n 1 -P "$jobs" bash "$here/fuzz_one.sh" "$tree" "$env" 5
    for target in "$env"/fuzzer/tests/fuzz/fuzz_*; do
        if [ ! -x "$target" ] || [ ! -f "$target" ]; then continue; fi
        count=$((count + 1))
        name=$(basename "$target")
        [ -s "$logs/$name.code" ] || echo 1 > "$logs/$name.code"
        one "$name, 8 s" "$(cat "$logs/$name.code")" "$logs/$name.log"
    done
    [ $count -gt 0 ] || { failed=$((failed + 1)); echo "  FAIL  no fuzz target was built"; }
}

# The tarball builds and passes from elsewhere, with nothing but the libraries that are required.
stage_distcheck()
{
    single "distcheck (--without-onednn --without-cuda)" make -C "$env/build" -s -j"$jobs" distcheck CC="ccache gcc" AP_TEST_QUICK=1 AM_DISTCHECK_CONFIGURE_FLAGS='--without-onednn --without-cuda'
}

[ $# -gt 0 ] || set -- static default tidy sanitizer fuzz distcheck
for stage in "$@"; do
    declare -F "stage_$stage" > /dev/null || { printf 'check: there is no stage "%s"\n' "$stage" >&2; exit 2; }
done
for stage in "$@"; do
    printf '== %s\n' "$stage"
    start=$SECONDS
    "stage_$stage"
    printf '   (%d s)\n' $((SECONDS - start))
done

# The line that a machine reads: alone, and last.
if [ $skipped -gt 0 ]; then
    printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
else
    printf '%d passed, %d failed\n' $passed $failed
fi
[ $failed = 0 ] && [ $passed -gt 0 ]
