/* SPDX-License-Identifier: Apache-2.0
 * Where the program's own files are: shipped data and the SPMD binary, in an installed tree (which may
 * have been moved as a whole), a build tree, or a source tree. No state. */
#ifndef AP_BASE_PATHS_H
#define AP_BASE_PATHS_H

#include <stddef.h>

#define AP_PATHS_DATA_DIRS 7

/* Folder of the running executable into buf; 0, or -1 where the system does not tell. */
int ap_paths_exe_dir(char *buf, size_t size);
/* Candidate number index (0 ..) of the data folder, the one that holds models/: $ANTIPODE_DATADIR, then
 * inputs/ near the executable, share/antipode near it, the configured folder. 1: buf is set (the folder
 * need not exist), 0: this candidate does not apply, -1: no more candidates. */
int ap_paths_data_dir(int index, char *buf, size_t size);
/* First existing DATA/relative into buf; 0, or -1 if there is none. */
int ap_paths_find_data(const char *relative, char *buf, size_t size);
/* A helper program such as antipode-train: beside the executable (build tree), in the libexec folder near
 * it, or in the configured one; 0, or -1 if there is none. */
int ap_paths_find_program(const char *name, char *buf, size_t size);

#endif
