/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint store: a directory of committed states.
 *   DIR/LOCK                    held by the job that writes here (flock; second job: AP_ERR_LOCKED)
 *   DIR/step-000000000100/      one state; appears by rename when complete and durable
 *       rank-00000.h5 ...       HDF5 image per rank: one dataset per named tensor range (ckpt/image.h)
 *       manifest.json           format version, step, files with length and XXH3-128, tensors, meta
 *   DIR/best -> state kept outside the rotation
 * A state counts only when its manifest is durable. Loading verifies every chunk before it is used; a state
 * that fails is renamed to *.corrupt, reported, and the one before it is taken. */
#ifndef AP_CKPT_STORE_H
#define AP_CKPT_STORE_H

#include "base/pool.h"
#include "parallel/comm.h"
#include "state/named.h"

struct ap_ckpt_store;

struct ap_ckpt_options {
    const char *dir;
    int64_t keep;         /* newest states kept, >= 1; the best state is kept besides */
    int zstd_level;       /* 0: default 1 */
    int read_only;        /* no lock, no quarantine: for eval and tools */
    struct ap_pool *pool; /* compresses chunks; borrowed until close; NULL: serial */
};

/* Collective over comm (borrowed until close). Creates the directory, takes the lock on rank 0, removes
 * leftovers of interrupted saves. */
ap_status ap_ckpt_store_open(const struct ap_ckpt_options *opt, struct ap_comm *comm, struct ap_ckpt_store **store_p,
                             struct ap_error *err);
void ap_ckpt_store_close(struct ap_ckpt_store *store); /* NULL is fine */

/* Collective, blocking until durable. Each rank passes the ranges it owns; together they tile every tensor
 * (checked). meta_json: JSON object text, the same on all ranks, stored in the manifest. On failure nothing
 * committed earlier is touched and the temporary files are gone. Afterwards states older than the newest
 * `keep` are removed. best != 0: also keep this state as the best one. */
ap_status ap_ckpt_save(struct ap_ckpt_store *store, int64_t step, const struct ap_named_set *tensors,
                       const char *meta_json, int best, struct ap_error *err);

enum { AP_CKPT_LATEST = -1, AP_CKPT_BEST = -2 };
/* Collective. Fill the ranges of *tensors (any layout) from the newest intact state (or the given step).
 * *meta_json_p is malloc'ed. AP_ERR_NOTFOUND: no state at all; AP_ERR_LOST: states exist, none is intact;
 * AP_ERR_FORMAT: written by another format version; AP_ERR_INPUT: shapes of another model.
 * A tensor of *tensors that the state lacks is AP_ERR_INPUT; extra tensors in the state are ignored. */
ap_status ap_ckpt_load(struct ap_ckpt_store *store, int64_t step, struct ap_named_set *tensors, char **meta_json_p,
                       int64_t *step_p, struct ap_error *err);
/* What the last ap_ckpt_load had to pass over, for the event log: the same on all ranks, valid until the next load or
 * close. skipped 0: nothing; text: one sentence per state passed over. */
struct ap_ckpt_report {
    int skipped;
    int64_t newest_step; /* of the states that were there */
    char text[1024];
};
const struct ap_ckpt_report *ap_ckpt_store_report(const struct ap_ckpt_store *store);
/* What the last ap_ckpt_save wrote, summed over ranks. */
struct ap_ckpt_figures {
    int64_t raw_bytes, stored_bytes;
    double build_s, write_s, commit_s; /* compress; write and fsync; manifest, re-read, retention: on this rank */
};
const struct ap_ckpt_figures *ap_ckpt_store_figures(const struct ap_ckpt_store *store);
/* Meta of a state without its tensors; same errors. Not collective. */
ap_status ap_ckpt_peek(const char *dir, int64_t step, char **meta_json_p, int64_t *step_p, struct ap_error *err);

struct ap_ckpt_entry {
    int64_t step;
    int best;
    int64_t bytes;
    int files;
    char path[512];
};
/* States in a directory, newest first (malloc'ed list, owned by the caller). Not collective. */
ap_status ap_ckpt_list(const char *dir, struct ap_ckpt_entry **list_p, int *count_p, struct ap_error *err);
/* Read and check every byte of one state. Not collective. */
ap_status ap_ckpt_verify(const char *state_path, struct ap_error *err);

#endif
