#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The rules of this code base that grep can keep: layers, forbidden calls, file heads and sizes.
# usage: lint.sh [TREE]     Prints one line "file:line: rule: text" per violation; exit 1 when there is one.
set -u
tree=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$tree" || exit 2
max_lines=800
found=$(mktemp) || exit 2
trap 'rm -f "$found"' EXIT

# report RULE: reads "file:line:text" and keeps it.
report()
{
    sed -E "s|^([^:]*):([0-9]*):[[:space:]]*|\1:\2: $1: |" >> "$found"
}

# code FILE...: "file:line:text" with comments and string contents blanked, so that rules see code only.
code()
{
    awk '
        FNR == 1 { in_comment = 0 }
        {
            line = $0; out = ""
            if (line ~ /^[[:space:]]*#[[:space:]]*include/) { print FILENAME ":" FNR ":" line; next }
            while (line != "") {
                if (in_comment) {
                    end = index(line, "*/")
                    if (!end) break
                    line = substr(line, end + 2); in_comment = 0; continue
                }
                if (!match(line, /["\047\/]/)) { out = out line; break }
                if (RSTART > 1) { out = out substr(line, 1, RSTART - 1); line = substr(line, RSTART) }
                if (match(line, /^"([^"\\]|\\.)*"/)) { out = out "\"\""; line = substr(line, RLENGTH + 1); continue }
                if (match(line, /^\047([^\047\\]|\\.)*\047/)) { out = out "0"; line = substr(line, RLENGTH + 1); continue }
                two = substr(line, 1, 2)
                if (two == "//") break
                if (two == "/*") { in_comment = 1; line = substr(line, 3); continue }
                out = out substr(line, 1, 1); line = substr(line, 2)
            }
            print FILENAME ":" FNR ":" out
        }' "$@"
}

sources=$(mktemp) && trap 'rm -f "$found" "$sources"' EXIT
find src tests bench -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' \) 2> /dev/null | sort > "$sources"
mapfile -t all < "$sources"
[ ${#all[@]} -gt 0 ] || { echo "lint: no sources under $tree" >&2; exit 2; }
mapfile -t product < <(grep '^src/' "$sources")
stripped=$(mktemp) && trap 'rm -f "$found" "$sources" "$stripped"' EXIT
code "${all[@]}" > "$stripped"
in_src() { grep '^src/' "$stripped"; }

# MPI only in src/parallel (and its test programs); the world communicator, init and abort in one file.
grep -E '#[[:space:]]*include[[:space:]]*[<"]mpi(-ext)?\.h' "$stripped" | grep -Ev '^(src/parallel|tests/mpi)/' | report "mpi.h outside src/parallel"
grep -E '\b(MPI_COMM_WORLD|MPI_Init|MPI_Init_thread|MPI_Abort)\b' "$stripped" | grep -Ev '^(src/parallel/world\.c|tests/mpi/)' |
    report "MPI world outside src/parallel/world.c"
# CUDA only in its backend.
grep -E '#[[:space:]]*include[[:space:]]*[<"](cuda|cuda_runtime|cublas|nccl)[a-zA-Z_]*\.h' "$stripped" | grep -Ev '^src/backend/cuda/' |
    report "CUDA outside src/backend/cuda"
# Calls that lose data, write past buffers, print behind the logger's back, or end the process (_exit is what a forked
# child does).
in_src | grep -E '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|tmpnam|mktemp)[[:space:]]*\(' | report "unsafe string call"
in_src | grep -E '\b(atoi|atol|atoll|atof)[[:space:]]*\(' | report "number parsed without check"
in_src | grep -E '\b(v?printf|puts|putchar|perror)[[:space:]]*\(|\bfprintf[[:space:]]*\([[:space:]]*std(out|err)\b' |
    grep -Ev '^src/base/log\.c:' | grep -Ev 'format[[:space:]]*\([[:space:]]*printf|__attribute__' | report "output outside base/log"
in_src | grep -E '(^|[^_[:alnum:]>.])(exit|abort|quick_exit)[[:space:]]*\(' | grep -Ev '^src/cli/(main|train_main)\.c' | report "exit outside main"
in_src | grep -E '(^|[^_[:alnum:]])system[[:space:]]*\(' | report "shell from C"

# Every allocation is tested soon: a line that names its variable and tests something, at most 15 lines below.
awk -F: '
    function flush(upto,   i) {
        for (i = first; i <= count; i++)
            if (where[i] != "" && born[i] <= upto) { print where[i]; where[i] = "" }
        while (first <= count && where[first] == "") first++
    }
    BEGIN { first = 1 }
    { file = $1; line = $2; text = substr($0, length(file) + length(line) + 3) }
    file !~ /^src\// { next }
    file != last { flush(NR); last = file }
    {
        if (text ~ /(if|while|return|\?|&&|\|\||!|==)/)
            for (i = first; i <= count; i++)
                if (where[i] != "" && index(text, name[i])) where[i] = ""
        flush(NR - 15)
    }
    match(text, /[A-Za-z_][][A-Za-z_0-9>.*()-]*[[:space:]]*=[[:space:]]*(\([^()]*\)[[:space:]]*)?(malloc|calloc|realloc|reallocarray|strdup|strndup|aligned_alloc)[[:space:]]*\(/) {
        if (text ~ /(if|while)[[:space:]]*\(/) next
        it = substr(text, RSTART, RLENGTH); sub(/[[:space:]]*=.*/, "", it); sub(/^[*(]+/, "", it)
        count++; name[count] = it; where[count] = file ":" line ":" text; born[count] = NR
    }
    END { flush(NR) }' "$stripped" | report "allocation not checked"

# Layers: a directory may include its own headers and those above it in this order.
awk -F: '
    BEGIN {
        n = split("base monitor backend quant text plan state wan parallel probe model hf ckpt train", order, " ")
        for (i = 1; i <= n; i++) rank[order[i]] = i
        side["launch"] = side["prep"] = side["view"] = " base monitor text plan "
    }
    {
        file = $1; text = substr($0, length(file) + length($2) + 3)
        if (file !~ /^src\// || text !~ /#[[:space:]]*include[[:space:]]*"/) next
        split(file, part, "/"); from = part[2]
        match(text, /"[^"]*"/); target = substr(text, RSTART + 1, RLENGTH - 2)
        if (index(target, "/") == 0) { if (target != "config.h" && !(target ~ /^emu/ && from == "backend")) print; next }
        split(target, p, "/"); to = p[1]
        if (from == to || from == "cli") next
        if (from in side) { if (!index(side[from], " " to " ")) print; next }
        if (!(from in rank) || !(to in rank) || rank[to] > rank[from]) print
    }' "$stripped" | report "include against the layer order"

# Heads, sizes, names. One process over all files: there are many.
# libtool writes its own macros; fuzz corpora and test inputs are data, some of them broken on purpose.
find src tests bench contrib containers inputs man m4 jobscripts docs -type f \( -name '*.sh' -o -name '*.mk' -o -name '*.m4' \
    -o -name '*.py' -o -name '*.yaml' -o -name 'Containerfile' -o -name '*.def' \) 2> /dev/null | cat "$sources" - |
    grep -Ev '^(m4/lt[^/]*|m4/libtool\.m4|tests/fuzz/corpus[^/]*/.*|tests/data/.*|tests/cli/data/.*)$' | sort -u | tr '\n' '\0' |
    xargs -0 awk '
        FNR <= 5 && /SPDX-License-Identifier: Apache-2.0/ { found[FILENAME] = 1 }
        END { for (i = 1; i < ARGC; i++) if (!(ARGV[i] in found)) print ARGV[i] ":1:" }' | report "no SPDX line in the first five"
awk -v max=$max_lines 'FNR == max + 1 { print FILENAME ":" FNR ":" }' "${all[@]}" | report "more than $max_lines lines"
awk '
    /^[[:space:]]*#[[:space:]]*include/ && FILENAME ~ /\.(c|cu)$/ && !(FILENAME in first) {
        first[FILENAME] = 1
        if (index($0, "\"config.h\"") == 0) print FILENAME ":" FNR ":" $0
    }' "${product[@]}" | report "config.h is not the first include"
awk '
    FNR >= 2 && FNR <= 4 && !/^#/ && /[a-z]/ { told[FILENAME] = 1 }
    END { for (i = 1; i < ARGC; i++) if (!(ARGV[i] in told)) print ARGV[i] ":2:" }' "${product[@]}" | report "no comment that says the file's job"
# File stems are unique, so that a name in a message or a debugger says which file; header and source share one.
printf '%s\n' "${product[@]}" | sed -E 's|\.[a-z]+$||' | sort -u | awk -F/ '
    { stem = $NF; if (stem in seen) print $0 ":1:also " seen[stem]; else seen[stem] = $0 }' | report "stem used twice"
# Marks of unfinished work.
mark='TO''DO|FIX''ME|XX''X'
grep -nE "\b($mark)\b" "${all[@]}" quickstart 2> /dev/null | report "unfinished mark"
# Trailing blanks, tabs in C.
grep -nE '[[:space:]]+$' "${all[@]}" | report "trailing blank"
grep -nP '^\t' "${product[@]}" | report "tab in indentation"

count=$(wc -l < "$found")
if [ "$count" -gt 0 ]; then
    cat "$found"
    echo "lint: $count violations"
    exit 1
fi
echo "lint: ${#all[@]} files clean"
