/* SPDX-License-Identifier: Apache-2.0
 * Streams and events of the emulated devices, on which another library (tests/support/fake_nccl.c) may leave work. C
 * and C++. */
#ifndef AP_TESTS_EMU_STREAM_H
#define AP_TESTS_EMU_STREAM_H

struct emu_stream_st {
    int device;
    int (*busy)(void *work); /* advances the work; 0: there is none left. NULL: none */
    void *work;
    long submitted, completed; /* pieces of work so far */
};

/* Done when the stream has completed `at` pieces. */
struct emu_event_st {
    struct emu_stream_st *stream; /* NULL: not recorded */
    long at;
};

#endif
