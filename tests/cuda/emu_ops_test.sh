#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every operation of the CUDA backend against the oracle on the emulator, each launch in two orders of threads
# and blocks that must give the same bits.
set -u
export ANTIPODE_PLUGINDIR=$AP_BUILDDIR/tests/cuda ANTIPODE_EMU_ORDER=both
# Every second call: `make check` has its limit. All of them: antipode-cuda-emu.so under tests/ops/ops --backend cuda-emu.
exec "$AP_BUILDDIR/tests/ops/ops" --backend cuda-emu --every 2
