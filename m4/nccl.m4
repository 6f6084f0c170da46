dnl SPDX-License-Identifier: Apache-2.0
dnl NCCL, which carries tensors between GPUs. It is loaded at run time, so that nothing of it is needed to build: where
dnl nccl.h is found, our declarations (src/parallel/nccl_api.h) are compared with it. --without-nccl leaves it out.
AC_DEFUN([AP_NCCL], [
  AC_ARG_WITH([nccl], [AS_HELP_STRING([--without-nccl],
    [no NCCL between GPUs (default: its library is looked for when a run needs it)])], [], [with_nccl=yes])
  ap_have_nccl=no
  AS_IF([test "$with_nccl" != no], [
    ap_have_nccl="loaded at run time"
    AC_DEFINE([AP_HAVE_NCCL], [1], [NCCL is looked for at run time])
    AS_IF([test -n "$CUDA_LIBDIR"],
      [AC_DEFINE_UNQUOTED([AP_CUDA_LIBDIR], ["$CUDA_LIBDIR"], [Where the CUDA toolkit of this build has its libraries])])
    AC_MSG_CHECKING([whether nccl.h agrees with our declarations])
    ap_save_CPPFLAGS=$CPPFLAGS
    ap_save_CFLAGS=$CFLAGS
    CPPFLAGS="$CPPFLAGS -I$srcdir/src"
    AS_IF([test -n "$CUDA_PREFIX"], [CPPFLAGS="$CPPFLAGS -isystem $CUDA_PREFIX/include"])
    CFLAGS="$CFLAGS -Werror"
    AC_PREPROC_IFELSE([AC_LANG_SOURCE([[#include <nccl.h>]])], [
      AC_COMPILE_IFELSE([AC_LANG_SOURCE([[
#include <stddef.h>
#include <nccl.h>
#include "parallel/nccl_api.h"
#define SAME(a, b) _Static_assert((long)(a) == (long)(b), "differs from nccl.h")
SAME(ncclSuccess, AP_NCCL_SUCCESS);
SAME(ncclInProgress, AP_NCCL_IN_PROGRESS);
SAME(ncclUint8, AP_NCCL_UINT8);
SAME(ncclFloat32, AP_NCCL_F32);
SAME(ncclFloat64, AP_NCCL_F64);
SAME(ncclBfloat16, AP_NCCL_BF16);
SAME(ncclSum, AP_NCCL_SUM);
SAME(sizeof(ncclUniqueId), sizeof(struct ap_nccl_id));
SAME(sizeof(ncclResult_t), sizeof(int));
SAME(sizeof(ncclDataType_t), sizeof(int));
SAME(offsetof(ncclConfig_t, magic), offsetof(struct ap_nccl_config, magic));
SAME(offsetof(ncclConfig_t, version), offsetof(struct ap_nccl_config, version));
SAME(offsetof(ncclConfig_t, blocking), offsetof(struct ap_nccl_config, blocking));
/* The types in our declarations are those of nccl.h by other names. */
const char *(*text)(ncclResult_t) = ncclGetErrorString;
ncclResult_t (*version)(int *) = ncclGetVersion;
ncclResult_t (*unique)(ncclUniqueId *) = ncclGetUniqueId;
ncclResult_t (*init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *) = ncclCommInitRankConfig;
ncclResult_t (*async)(ncclComm_t, ncclResult_t *) = ncclCommGetAsyncError;
ncclResult_t (*gone)(ncclComm_t) = ncclCommAbort;
ncclResult_t (*start)(void) = ncclGroupStart;
ncclResult_t (*end)(void) = ncclGroupEnd;
ncclResult_t (*one)(const void *, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclBroadcast;
ncclResult_t (*all)(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t) = ncclAllGather;
ncclResult_t (*sum)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) = ncclAllReduce;
ncclResult_t (*cut)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) =
    ncclReduceScatter;
ncclResult_t (*out)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclSend;
ncclResult_t (*in)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclRecv;
unsigned magic(void) { ncclConfig_t c = NCCL_CONFIG_INITIALIZER; return c.magic - AP_NCCL_MAGIC; }
]])],
        [AC_MSG_RESULT([yes])
         ap_have_nccl="loaded at run time (declarations checked against nccl.h)"],
        [AC_MSG_RESULT([no])
         AC_MSG_ERROR([nccl.h and src/parallel/nccl_api.h differ (see config.log); --without-nccl does without it])])
    ], [AC_MSG_RESULT([there is none, not needed])])
    CPPFLAGS=$ap_save_CPPFLAGS
    CFLAGS=$ap_save_CFLAGS
  ])
  AM_CONDITIONAL([AP_HAVE_NCCL], [test "$ap_have_nccl" != no])
])
