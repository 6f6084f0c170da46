#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The golden numbers by the real model code on the CUDA backend's kernels, emulated.
set -u
export ANTIPODE_PLUGINDIR=$AP_BUILDDIR/tests/cuda
cases=("$AP_SRCDIR"/tests/golden/*/)
[ -d "${cases[0]}" ] || { echo "no golden cases in $AP_SRCDIR/tests/golden"; exit 1; }
exec "$AP_BUILDDIR/tests/cuda/golden" cuda-emu "${cases[@]}"
