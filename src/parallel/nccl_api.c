/* SPDX-License-Identifier: Apache-2.0
 * Search and loading of NCCL. The version is asked before anything else is looked up, so that an old library is
 * called old and not incomplete. */
#include "config.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/nccl_api.h"

const char *ap_nccl_version_text(int version, char *buf, size_t size)
{
    /* Up to 2.8 the version was coded with one digit less. */
    int thousand = version >= 10000 ? 10000 : 1000;
    snprintf(buf, size, "%d.%d.%d", version / thousand, version % thousand / 100, version % 100);
    return buf;
}

#ifdef AP_HAVE_NCCL

static const char fix[] =
    "install NCCL 2.14 or newer, name its file in " AP_NCCL_ENV ", or set parallel.device_comm: mpi";

static ap_status open_library(const char *library, void **lib_p, struct ap_error *err)
{
    const char *named = getenv(AP_NCCL_ENV);
    char why[512] = "", path[PATH_MAX];
    if (named && named[0])
        library = named;
    if (!library)
        return ap_error_set(err, AP_ERR_UNSUPPORTED, "there is no NCCL for this kind of device");
    *lib_p = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (*lib_p)
        return AP_OK;
    snprintf(why, sizeof(why), "%s", dlerror());
#ifdef AP_CUDA_LIBDIR
    if (!strchr(library, '/') && snprintf(path, sizeof(path), "%s/%s", AP_CUDA_LIBDIR, library) < (int)sizeof(path))
        *lib_p = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*lib_p)
        return AP_OK;
#else
    (void)path;
#endif
    ap_error_set(err, AP_ERR_ENV, "NCCL does not load: %s", why);
    ap_error_hint(err, "%s", fix);
    return AP_ERR_ENV;
}

/* A function as an address: ISO C has no cast from object to function pointers. */
static ap_status find(void *lib, const char *name, void *function, struct ap_error *err)
{
    void *symbol = dlsym(lib, name);
    if (!symbol) {
        ap_error_set(err, AP_ERR_ENV, "the NCCL library has no function %s", name);
        ap_error_hint(err, "%s", fix);
        return AP_ERR_ENV;
    }
    memcpy(function, &symbol, sizeof(symbol));
    return AP_OK;
}

static ap_status check_version(void *lib, int *version_p, struct ap_error *err)
{
    int (*get_version)(int *version) = NULL;
    char have[32];
    AP_TRY(find(lib, "ncclGetVersion", &get_version, err));
    if (get_version(version_p) != AP_NCCL_SUCCESS)
        return ap_error_set(err, AP_ERR_ENV, "the NCCL library does not tell its version");
    if (*version_p >= AP_NCCL_OLDEST)
        return AP_OK;
    ap_error_set(err, AP_ERR_ENV, "NCCL is %s: at least 2.14 is needed, for communicators that do not block",
                 ap_nccl_version_text(*version_p, have, sizeof(have)));
    ap_error_hint(err, "%s", fix);
    return AP_ERR_ENV;
}

ap_status ap_nccl_load(const char *library, struct ap_nccl *api_p, struct ap_error *err)
{
    void *lib = NULL;
    struct ap_nccl api = {0};
    AP_TRY(open_library(library, &lib, err));
    AP_TRY(check_version(lib, &api.version, err));
#define FIND(name, result, parameters) AP_TRY(find(lib, #name, &api.name, err));
    AP_NCCL_FUNCTIONS(FIND)
#undef FIND
    *api_p = api;
    return AP_OK;
}

#else

ap_status ap_nccl_load(const char *library, struct ap_nccl *api_p, struct ap_error *err)
{
    (void)library;
    (void)api_p;
    ap_error_set(err, AP_ERR_UNSUPPORTED, "this build is without NCCL (configure --without-nccl)");
    ap_error_hint(err, "set parallel.device_comm: mpi, or build without --without-nccl");
    return AP_ERR_UNSUPPORTED;
}

#endif
