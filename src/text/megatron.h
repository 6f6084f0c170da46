/* SPDX-License-Identifier: Apache-2.0
 * Megatron indexed datasets (MMIDIDX version 1): PREFIX.bin holds the token ids of all documents end to end,
 * PREFIX.idx says where each sequence and each document starts. docs/formats-data.md describes the bytes.
 *
 * The reader maps both files and trusts nothing: every length, offset and count is checked against the file
 * sizes at open, so that no later access can leave the mapping. Files whose sequences do not follow each
 * other without gaps (Megatron never writes such) are refused: the .bin is then one token stream, and no
 * table has to be built in memory. Readers are immutable after open and thread-safe. */
#ifndef AP_TEXT_MEGATRON_H
#define AP_TEXT_MEGATRON_H

#include <stddef.h>
#include <stdint.h>
#include "base/hash.h"
#include "base/status.h"

/* Codes as stored in the index. */
enum ap_megatron_dtype {
    AP_MEGATRON_U8 = 1,
    AP_MEGATRON_I8 = 2,
    AP_MEGATRON_I16 = 3,
    AP_MEGATRON_I32 = 4,
    AP_MEGATRON_I64 = 5,
    AP_MEGATRON_F64 = 6, /* known, refused: not token ids */
    AP_MEGATRON_F32 = 7, /* known, refused */
    AP_MEGATRON_U16 = 8
};

#define AP_MEGATRON_HEADER_SIZE 34

/* A checked index. The three arrays are little-endian, unaligned, and borrowed from the caller's bytes. */
struct ap_megatron_index {
    const uint8_t *lengths;   /* i32 [sequences]: tokens of each sequence */
    const uint8_t *pointers;  /* i64 [sequences]: byte offset of each sequence in the .bin */
    const uint8_t *documents; /* i64 [documents + 1]: first sequence of each document, then sequences */
    int64_t sequences, documents_count, tokens;
    int dtype, width; /* code; bytes of one token */
};

/* Check the bytes of an .idx against the size of its .bin. path is for messages only. AP_ERR_FORMAT for
 * another version, AP_ERR_INPUT for everything else that is wrong. */
ap_status ap_megatron_index_parse(const uint8_t *data, size_t size, uint64_t bin_size, const char *path,
                                  struct ap_megatron_index *index_p, struct ap_error *err);

struct ap_megatron;

/* Map PREFIX.idx and PREFIX.bin. A dataset without tokens opens; callers decide whether that is an error. */
ap_status ap_megatron_open(const char *prefix, struct ap_megatron **m_p, struct ap_error *err);
void ap_megatron_close(struct ap_megatron *m);

/* The path given to open; valid until close. */
const char *ap_megatron_prefix(const struct ap_megatron *m);
int ap_megatron_dtype(const struct ap_megatron *m);
int64_t ap_megatron_tokens(const struct ap_megatron *m);
int64_t ap_megatron_sequences(const struct ap_megatron *m);
int64_t ap_megatron_documents(const struct ap_megatron *m);
/* First token of document doc, 0 <= doc <= documents; the last value is the number of tokens. */
int64_t ap_megatron_document_start(const struct ap_megatron *m, int64_t doc);
/* The document that holds a token, 0 <= token < tokens. O(log documents). Documents may be empty; the
 * one returned never is. */
int64_t ap_megatron_document_of(const struct ap_megatron *m, int64_t token);
/* Copy tokens first .. first+count-1 into out; the range must lie inside the dataset. Ids that do not fit
 * 31 bits are undefined unless ap_megatron_check_ids passed. */
void ap_megatron_read(const struct ap_megatron *m, int64_t first, int64_t count, int32_t *out);
/* AP_ERR_INPUT naming file, document and position of the first id outside [0, vocab_size). Reads the whole
 * .bin once. */
ap_status ap_megatron_check_ids(const struct ap_megatron *m, int64_t vocab_size, struct ap_error *err);

/* Streaming writer: create, then append and end_document as often as needed, then commit. Data go to
 * PREFIX.bin.tmp; commit writes PREFIX.idx.tmp, syncs both, removes the old .idx, renames .bin then .idx and
 * syncs the directory, so that a crash leaves the old pair, the new pair, or a .bin without .idx, which
 * readers refuse: never a mixed pair. Not thread-safe. */
struct ap_megatron_writer;

struct ap_megatron_written {
    int64_t tokens, documents, bin_size, idx_size;
    struct ap_hash128 bin_hash, idx_hash;
};

/* The narrowest type that Megatron itself would choose for a vocabulary: u16 below 65500, else i32. */
int ap_megatron_dtype_for(int64_t vocab_size);
ap_status ap_megatron_writer_create(const char *prefix, int dtype, struct ap_megatron_writer **w_p,
                                    struct ap_error *err);
/* Add tokens to the current document. An id that the type cannot hold is AP_ERR_INPUT. */
ap_status ap_megatron_writer_append(struct ap_megatron_writer *w, const int32_t *tokens, int64_t count,
                                    struct ap_error *err);
ap_status ap_megatron_writer_end_document(struct ap_megatron_writer *w, struct ap_error *err);
/* An open document is ended first. written_p may be NULL. After commit only destroy is allowed. */
ap_status ap_megatron_writer_commit(struct ap_megatron_writer *w, struct ap_megatron_written *written_p,
                                    struct ap_error *err);
/* Frees; without a successful commit the temporary files are removed and PREFIX is as before. */
void ap_megatron_writer_destroy(struct ap_megatron_writer *w);

#endif
