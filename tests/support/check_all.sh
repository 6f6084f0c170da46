#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everything that must hold before a change lands: `./quickstart check` runs this inside the environment.
# usage: check_all.sh TREE ENV-DIR [STAGE...]     Ends in "N passed, N failed"; exit 1 when anything failed.
# All stages run under one make, which gives out as many jobs as there are processors and one more (a test waits now and
# then): a stage takes what the others leave. Its parts are functions part_NAME, each run by a process of its own whose
# output appears when it has ended. Builds have folders of their own under ENV-DIR and share objects through ccache.
set -u
part=
if [ "$1" = --part ]; then
    part=$2
    shift 2
fi
tree=$1
env=$2
shift 2
here=$tree/tests/support
logs=$env/check-logs
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

# build NAME CC OPTION...: configure and build in ENV-DIR/NAME as one check.
build()
{
    local name=$1 cc=$2 log
    shift 2
    log=$logs/build-$name.log
    CC=$cc bash "$tree/containers/build.sh" "$tree" "$env/$name" "$@" > "$log" 2>&1
    one "build $name${1:+ ($*)}" $? "$log"
}

# results BUILD: the .trs files of its tests. distcheck builds below the same folder.
results()
{
    find "$1" -path '*/antipode-[0-9]*' -prune -o -name '*.trs' -print | sort
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
            s=$((s + 1))
            printf '  skip  %s: %s\n' "$(basename "${trs%.trs}")" "$(grep -m1 -iE 'skip' "$log" || tail -n 1 "$log")"
            continue
            ;;
        PASS*)
            sed -n "s/.*\(fewer: \)/  fewer  $(basename "${trs%.trs}"): /p" "$log" | sort -u
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
    done < <(results "$1")
    printf '  most processor time: %s\n' "$(results "$1" | sed 's/trs$/log/' | xargs -r grep -H '^run.sh: exit code' 2> /dev/null |
        sed -E 's|.*/([^/]*)\.log:.*, ([0-9]+) s of processor|\2 s \1|' | sort -rn | head -n 8 | paste -sd ,)"
    printf '  tests: %d passed, %d failed, %d skipped\n' "$p" "$f" "$s"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ $((p + f)) -gt 0 ] || { failed=$((failed + 1)); printf '  FAIL  no test ran in %s\n' "$1"; }
}

# make_check BUILD LOG [VAR=VALUE...]
make_check()
{
    local dir=$1 log=$2
    shift 2
    results "$dir" | xargs -r rm -f
    if ! make -C "$dir" -s check TESTS= "$@" > "$log" 2>&1 < /dev/null; then
        one "compile the tests in $(basename "$dir")" 1 "$log"
        return
    fi
    make -C "$dir" -k -s check "$@" >> "$log" 2>&1 < /dev/null
    tally "$dir"
}

part_static()
{
    mapfile -t scripts < <(git -C "$tree" ls-files 2> /dev/null | xargs -r grep -lE '^#!.*\b(ba)?sh' 2> /dev/null)
    [ ${#scripts[@]} -gt 0 ] || mapfile -t scripts < <(find quickstart bench containers contrib tests .ci -type f -exec grep -lE '^#!.*\b(ba)?sh' {} +)
    single shellcheck shellcheck -x -S info "${scripts[@]}"
    single yamllint yamllint -d '{extends: relaxed, rules: {line-length: {max: 160}, comments: disable}}' inputs/*.yaml
    single clang-format bash -c 'find src tests bench -name "*.[ch]" -print0 | xargs -0 clang-format --dry-run --Werror'
}

# Before all builds, since it writes into the tree that they share: configure, and what autotools make for it.
part_prepare()
{
    single configure env CC="ccache gcc" TARGET=config.h bash "$tree/containers/build.sh" "$tree" "$env/build"
}

part_default-build()
{
    build build "ccache gcc"
}

part_default()
{
    make_check "$env/build" "$logs/check-default.log"
}

part_tidy()
{
    # One process; the flags are those of the build.
    single clang-tidy bash "$here/tidy.sh" "$tree" "$env/build" 1
}

part_sanitizer-build()
{
    build sanitizer "ccache gcc" --enable-sanitizer --without-cuda CFLAGS='-O1 -g1'
}

part_sanitizer()
{
    make_check "$env/sanitizer" "$logs/check-sanitizer.log" AP_TEST_SANITIZED=1
}

part_fuzz-build()
{
    TARGET=fuzzers build fuzzer "ccache clang" --enable-fuzzer --enable-sanitizer --without-cuda CFLAGS='-O1 -g'
}

# The targets share a fixed time. What they find stays in ENV-DIR/fuzz-corpus, and the next check goes on from there.
part_fuzz()
{
    local target name each targets=()
    for target in "$env"/fuzzer/tests/fuzz/fuzz_*; do
        if [ -f "$target" ] && [ -x "$target" ]; then targets+=("$target"); fi
    done
    [ ${#targets[@]} -gt 0 ] || { failed=$((failed + 1)); echo "  FAIL  no fuzz target was built"; return; }
    each=$((40 / ${#targets[@]}))
    [ $each -ge 2 ] || each=2
    for target in "${targets[@]}"; do
        name=$(basename "$target")
        bash "$here/fuzz_one.sh" "$tree" "$env" $each "$target"
        one "$name, $each s" $? "$logs/$name.log"
    done
}

# The tarball builds and passes from elsewhere, with nothing but the libraries that are required.
part_distcheck()
{
    local log=$logs/distcheck.log
    single distcheck make -C "$env/build" -s distcheck CC="ccache gcc" XZ_OPT=-0 AP_TEST_QUICK=1 \
        AM_DISTCHECK_CONFIGURE_FLAGS='--without-onednn --without-cuda'
    printf '  --without-onednn --without-cuda: %d test programs passed\n' "$(grep -c '^PASS: ' "$log")"
    printf '  left out, since the default build runs them on the same sources: three of four calls of tests/ops, %s\n' \
        "$(sed -n 's/^SKIP: //p' "$log" | xargs -r -n 1 basename | sed 's/\.sh$//' | sort | paste -sd ' ')"
}

# What make runs. A stage has the name of its last part.
schedule()
{
    cat << 'EOF'
.PHONY: static prepare default-build default tidy sanitizer-build sanitizer fuzz-build fuzz distcheck
static prepare:
	+@$(PART)
default-build sanitizer-build fuzz-build: prepare
	+@$(PART)
default tidy distcheck: default-build
	+@$(PART)
sanitizer: sanitizer-build
	+@$(PART)
fuzz: fuzz-build
	+@$(PART)
EOF
}

# run_part NAME: shows its output at the end and leaves its counts in a file. Fails where others cannot go on without it.
run_part()
{
    local out=$logs/part-$1.out
    {
        printf '== %s\n' "$1"
        "part_$1"
        times > "$logs/part-$1.times"
        printf '   (%d s, %.0f s of processor)\n' $SECONDS \
            "$(tr 'ms' '  ' < "$logs/part-$1.times" | awk '{ sum += 60 * ($1 + $3) + $2 + $4 } END { print sum }')"
    } > "$out" 2>&1
    printf '%d %d %d\n' $passed $failed $skipped > "$logs/part-$1.counts"
    flock "$logs" cat "$out"
    case $1 in
    prepare | *-build) [ $failed = 0 ] ;;
    esac
}

if [ -n "$part" ]; then
    run_part "$part"
    exit
fi

stages=(static default tidy sanitizer fuzz distcheck)
[ $# -gt 0 ] || set -- "${stages[@]}"
for stage in "$@"; do
    [[ " ${stages[*]} " == *" $stage "* ]] || { printf 'check: there is no stage "%s"\n' "$stage" >&2; exit 2; }
done
rm -f "$logs"/part-*
schedule > "$logs/schedule.mk"
export PART="bash '$here/check_all.sh' --part \$@ '$tree' '$env'"
make -f "$logs/schedule.mk" -s --no-print-directory -k -j$(($(nproc) + 1)) "$@" < /dev/null 2> "$logs/schedule.log"
for stage in "$@"; do
    [ ! -e "$logs/part-$stage.counts" ] || continue
    printf '== %s\n  FAIL  it did not run (log: %s)\n' "$stage" "$logs/schedule.log"
    failed=$((failed + 1))
done
while read -r p f s; do
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done < <(cat "$logs"/part-*.counts)
printf '(%d s in all)\n' $SECONDS

# The line that a machine reads: alone, and last.
if [ $skipped -gt 0 ]; then
    printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
else
    printf '%d passed, %d failed\n' $passed $failed
fi
[ $failed = 0 ] && [ $passed -gt 0 ]
