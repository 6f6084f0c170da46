#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Stands for the tests of the CUDA kernels where configure found no C++ compiler.
echo 'skipped: no C++ compiler (g++), so the CUDA kernels were not tested on the emulator'
exit 77
