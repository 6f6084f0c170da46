#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy over the product's C sources with the compile flags of a build; .clang-tidy names the checks.
# usage: tidy.sh TREE BUILD JOBS
set -u
tree=$1
build=$2
jobs=$3
cd "$build" || exit 2
flags=$(make -s --no-print-directory -f - print << 'EOF'
include Makefile
print:
	@echo $(DEFS) $(DEFAULT_INCLUDES) $(AM_CPPFLAGS) $(CPPFLAGS) $(FYAML_CFLAGS) $(YYJSON_CFLAGS) $(XXHASH_CFLAGS) \
	  $(ZSTD_CFLAGS) $(HWLOC_CFLAGS) $(HDF5_CFLAGS) $(MPI_CFLAGS) -std=gnu17
EOF
) || exit 2
mapfile -t files < <(find "$tree/src" -name '*.c' | sort)
[ ${#files[@]} -gt 0 ] || exit 2
export flags config=$tree/.clang-tidy
# shellcheck disable=SC2016 # expanded by the inner shells
printf '%s\n' "${files[@]}" |
    xargs -P "$jobs" -n 4 sh -c 'clang-tidy --quiet --config-file="$config" --warnings-as-errors="*" "$@" -- $flags' sh 2>&1 |
    grep -v 'warnings generated\|Suppressed\|Use -header-filter'
exit "${PIPESTATUS[1]}"
