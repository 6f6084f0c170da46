/* SPDX-License-Identifier: Apache-2.0
 * Inside of the checkpoint store, shared by store.c (open, load) and store_save.c. */
#ifndef AP_CKPT_STORE_IMPL_H
#define AP_CKPT_STORE_IMPL_H

#include "ckpt/statedir.h"
#include "ckpt/store.h"

struct ap_ckpt_store {
    char dir[AP_STATE_PATH_BYTES - 128]; /* room for the names inside it */
    int64_t keep;
    int zstd_level;
    int read_only;
    struct ap_pool *pool; /* borrowed */
    struct ap_comm *comm; /* borrowed */
    int lock_fd;          /* rank 0 of a writer, else -1 */
    int nonce;            /* saves begun */
    struct ap_ckpt_report report;
    struct ap_ckpt_figures figures;
};

ap_status ap_store_comm_lost(struct ap_error *err);

#endif
