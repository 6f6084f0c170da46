/* SPDX-License-Identifier: Apache-2.0
 * The part of NCCL's interface that comm_nccl.c uses, declared by us and loaded at run time, so that building needs no
 * NCCL and running needs it only where it is used. Where configure finds nccl.h it compiles m4/nccl.m4's comparison of
 * the two.
 *
 * The configuration is that of 2.14, the first version with nonblocking communicators; later ones take it by its size
 * and version, and fill in the rest. */
#ifndef AP_PARALLEL_NCCL_API_H
#define AP_PARALLEL_NCCL_API_H

#include <stddef.h>

#include "base/status.h"

#define AP_NCCL_OLDEST 21400 /* 2.14.0 */
#define AP_NCCL_MAGIC  0xcafebeefu
#define AP_NCCL_ENV    "ANTIPODE_NCCL"

typedef struct ncclComm *ap_nccl_handle;
enum { AP_NCCL_SUCCESS = 0, AP_NCCL_IN_PROGRESS = 7 };
enum { AP_NCCL_UINT8 = 1, AP_NCCL_F32 = 7, AP_NCCL_F64 = 8, AP_NCCL_BF16 = 9 };
enum { AP_NCCL_SUM = 0 };
struct ap_nccl_id {
    char bytes[128];
};
struct ap_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

/* F(name, result, parameters): result int is ncclResult_t, stream a cudaStream_t. */
#define AP_NCCL_FUNCTIONS(F)                                                                                           \
    F(ncclGetErrorString, const char *, (int result))                                                                  \
    F(ncclGetUniqueId, int, (struct ap_nccl_id * id))                                                                  \
    F(ncclCommInitRankConfig, int,                                                                                     \
      (ap_nccl_handle * comm, int ranks, struct ap_nccl_id id, int rank, struct ap_nccl_config *config))               \
    F(ncclCommGetAsyncError, int, (ap_nccl_handle comm, int *result))                                                  \
    F(ncclCommAbort, int, (ap_nccl_handle comm))                                                                       \
    F(ncclGroupStart, int, (void))                                                                                     \
    F(ncclGroupEnd, int, (void))                                                                                       \
    F(ncclBroadcast, int,                                                                                              \
      (const void *send, void *recv, size_t count, int type, int root, ap_nccl_handle comm, void *stream))             \
    F(ncclAllGather, int,                                                                                              \
      (const void *send, void *recv, size_t send_count, int type, ap_nccl_handle comm, void *stream))                  \
    F(ncclAllReduce, int,                                                                                              \
      (const void *send, void *recv, size_t count, int type, int op, ap_nccl_handle comm, void *stream))               \
    F(ncclReduceScatter, int,                                                                                          \
      (const void *send, void *recv, size_t recv_count, int type, int op, ap_nccl_handle comm, void *stream))          \
    F(ncclSend, int, (const void *send, size_t count, int type, int peer, ap_nccl_handle comm, void *stream))          \
    F(ncclRecv, int, (void *recv, size_t count, int type, int peer, ap_nccl_handle comm, void *stream))

#define AP_NCCL_POINTER(name, result, parameters) result(*name) parameters;
struct ap_nccl {
    int version; /* 22809 is 2.28.9 */
    AP_NCCL_FUNCTIONS(AP_NCCL_POINTER)
};
#undef AP_NCCL_POINTER

/* Opens the library: the file that $ANTIPODE_NCCL names, else `library`, also in the CUDA toolkit that configure found;
 * it stays open. AP_ERR_ENV with the reason and the fix: no such library, a version before AP_NCCL_OLDEST, a function
 * that it lacks; AP_ERR_UNSUPPORTED in a build without NCCL or where library is NULL and the variable is not set. */
ap_status ap_nccl_load(const char *library, struct ap_nccl *api_p, struct ap_error *err);
/* "2.28.9" into buf; returns it. */
const char *ap_nccl_version_text(int version, char *buf, size_t size);

#endif
