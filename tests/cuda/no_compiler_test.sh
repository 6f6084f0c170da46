#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Stands for the tests of the CUDA kernels in a sanitized build and where configure found no C++ compiler.
if [ -n "${AP_TEST_SANITIZED:-}" ]; then
    echo 'skipped: the CUDA kernels are tested in a plain build, by an emulator with guards of its own'
else
    echo 'skipped: no C++ compiler (g++), so the CUDA kernels were not tested on the emulator'
fi
exit 77
