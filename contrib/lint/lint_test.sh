#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The lint passes on this tree, passes on a small clean tree, and finds each kind of violation when one is planted.
set -u
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: it reads the sources, which are those of the plain build"; exit 77; }
lint=$AP_SRCDIR/contrib/lint/lint.sh
failures=0

if ! bash "$lint" "$AP_SRCDIR"; then
    echo "FAIL: the tree has violations"
    failures=1
fi

clean_tree()
{
    rm -rf "$TMPDIR/tree"
    mkdir -p "$TMPDIR/tree/src/base" "$TMPDIR/tree/src/text" "$TMPDIR/tree/src/parallel" "$TMPDIR/tree/src/prep"
    cd "$TMPDIR/tree" || exit 99
    printf '/* SPDX-License-Identifier: Apache-2.0\n * A clean header. */\n' > src/base/good.h
    cat > src/text/clean.c << 'EOF'
/* SPDX-License-Identifier: Apache-2.0
 * A clean file. It may say printf(x), MPI_COMM_WORLD and strcpy(a, b) in a comment. */
#include "config.h"
#include <stdlib.h>
#include "base/good.h"

const char *text_clean(void)
{
    char *p = malloc(3);
    if (!p)
        return "exit(1) and atoi(x) in a string";
    free(p);
    return 0;
}
EOF
}

# plant RULE FILE TEXT: a clean tree with TEXT added to FILE must fail, naming RULE and FILE.
plant()
{
    clean_tree
    printf '%b\n' "$3" >> "$2"
    local out
    out=$(bash "$lint" "$TMPDIR/tree") && { echo "FAIL: not found: $1"; failures=1; return; }
    grep -F "$1" <<< "$out" | grep -qF "$(basename "$2" .c)" || { echo "FAIL: $1 not named: $out"; failures=1; }
}

clean_tree
out=$(bash "$lint" "$TMPDIR/tree") || { echo "FAIL: a clean tree is refused: $out"; failures=1; }

f=src/text/clean.c
head='/* SPDX-License-Identifier: Apache-2.0\n * Job. */\n#include "config.h"'
plant 'mpi.h outside src/parallel' $f '#include <mpi.h>'
plant 'MPI world outside' $f 'int w(void) { return MPI_COMM_WORLD; }'
plant 'MPI world outside' src/parallel/comm.c "$head\nint w(void) { return MPI_Abort(0, 0); }"
plant 'CUDA outside' $f '#include <cuda_runtime.h>'
plant 'unsafe string call' $f 'void c(char *a) { strcpy(a, "x"); }'
plant 'unsafe string call' $f 'void c(char *a) { sprintf(a, "x"); }'
plant 'number parsed without check' $f 'int c(char *a) { return atoi(a); }'
plant 'output outside base/log' $f 'void c(void) { printf("x"); }'
plant 'output outside base/log' $f 'void c(void) { fprintf(stderr, "x"); }'
plant 'exit outside main' $f 'void c(void) { exit(1); }'
plant 'shell from C' $f 'void c(void) { system("ls"); }'
plant 'allocation not checked' $f 'void c(void) {\n    char *q = malloc(1);\n    q[0] = 1;\n    free(q);\n}'
plant 'include against the layer order' src/base/low.c "$head\n#include \"text/utf8.h\""
plant 'include against the layer order' src/prep/side.c "$head\n#include \"train/data.h\""
plant 'include against the layer order' $f '#include "good.h"'
plant 'no SPDX line' src/text/bare.c '/* Job.\n * Job. */\n#include "config.h"'
plant 'more than 800 lines' $f "$(for _ in $(seq 800); do printf '\\n'; done)"
plant 'config.h is not the first include' src/text/late.c '/* SPDX-License-Identifier: Apache-2.0\n * Job. */\n#include <stdio.h>'
plant "no comment that says the file's job" src/text/mute.c '/* SPDX-License-Identifier: Apache-2.0 */\n#include "config.h"\n'
plant 'stem used twice' src/base/clean.c "$head"
plant 'unfinished mark' $f "/* TO""DO */"
plant 'trailing blank' $f 'int x; '
plant 'tab in indentation' $f '\tint x;'
[ $failures = 0 ] && echo "lint: all violations found"
exit $failures
