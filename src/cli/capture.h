/* SPDX-License-Identifier: Apache-2.0
 * Run a helper program and keep what it prints: for doctor. */
#ifndef AP_CLI_CAPTURE_H
#define AP_CLI_CAPTURE_H

#include <stddef.h>

/* argv[0] is looked for on PATH. Standard output and error together go to buf (NUL-terminated, cut at size).
 * Returns the exit code, 128 + signal, 127 where there is no such program, or -1: could not start (buf says why)
 * or still running after timeout_s (then killed with all its children). Blocking. */
int ap_capture(char *const argv[], double timeout_s, char *buf, size_t size);

#endif
