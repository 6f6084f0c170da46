/* SPDX-License-Identifier: Apache-2.0
 * What the emulator's scheduler and its runtime share: allocations, sticky errors, settings.
 *
 * Environment: ANTIPODE_EMU_ORDER forward | reverse | both; ANTIPODE_EMU_DEVICES a number, none or nodriver;
 * ANTIPODE_EMU_MEMORY bytes of device memory; ANTIPODE_EMU_FAULT n: launch n fails as on an illegal address. */
#ifndef AP_TESTS_CUDA_EMU_STATE_H
#define AP_TESTS_CUDA_EMU_STATE_H

#include <map>

#include "emu.h"

enum emu_order { EMU_FORWARD, EMU_REVERSE, EMU_BOTH };
enum emu_order emu_order(void);
/* Live device memory: address and size. */
const std::map<char *, size_t> &emu_allocations(void);
/* Ends the program when a guard around device memory was overwritten. */
void emu_check_guards(const char *kernel);
cudaError_t emu_stream_ok(cudaStream_t s);
size_t emu_dynamic_limit(const void *kernel);
/* Error that cudaGetLastError will return. */
void emu_set_error(cudaError_t e);
/* 0: this launch is the one that must fail; the error shows at the next synchronisation. */
int emu_count_launch(void);

#endif
