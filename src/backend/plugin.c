/* SPDX-License-Identifier: Apache-2.0
 * Search and loading of backend plug-ins. A plug-in says its size and version first, so that one that was
 * built for another program is refused before anything of it is called. */
#include "config.h"

#include <ctype.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/plugin.h"
#include "base/paths.h"

#define CANDIDATES 5

/* Names become part of a path: letters, digits and '-' only. */
static int name_ok(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++) {
        if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]) && name[i] != '-')
            return 0;
    }
    return n > 0 && n <= 32 && name[0] != '-';
}

/* Candidate number index of the plug-in's path; 1: path is set, 0: does not apply. */
static int candidate(int index, const char *name, char *path, size_t size)
{
    static const char *const near[] = {"", "/../lib/antipode", "/../../lib/antipode"};
    char exe[PATH_MAX];
    const char *dir = exe, *below = "";
    if (index == 0) {
        dir = getenv("ANTIPODE_PLUGINDIR");
        if (!dir || dir[0] != '/')
            return 0;
    } else if (index <= 3) {
        if (ap_paths_exe_dir(exe, sizeof exe) != 0)
            return 0;
        below = near[index - 1];
    } else {
        dir = AP_PKGLIBDIR;
    }
    return snprintf(path, size, "%s%s/antipode-%s.so", dir, below, name) < (int)size;
}

static int find_file(const char *name, char *path, size_t size)
{
    for (int i = 0; name_ok(name) && i < CANDIDATES; i++) {
        if (candidate(i, name, path, size) && access(path, R_OK) == 0)
            return 1;
    }
    return 0;
}

int ap_backend_plugin_likely(const char *name)
{
    /* The driver's control node; the one of Windows' Linux subsystem; a folder that the user names. */
    return strcmp(name, "cuda") != 0 || access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0 ||
           getenv("ANTIPODE_PLUGINDIR");
}

static ap_status check(const char *name, const char *path, const struct ap_backend_ops *vt, struct ap_error *err)
{
    if (!vt || vt->size != sizeof(*vt) || vt->abi != AP_BACKEND_ABI) {
        ap_error_set(err, AP_ERR_ENV,
                     "backend %s: %s was built for another version of antipode (interface %d, %d is needed)", name,
                     path, vt ? vt->abi : 0, AP_BACKEND_ABI);
        ap_error_hint(err, "install the plug-in of this version, or use backend: cpu");
        return AP_ERR_ENV;
    }
    return AP_OK;
}

ap_status ap_backend_plugin_open(const char *name, const struct ap_backend_ops **vt_p, struct ap_error *err)
{
    char path[PATH_MAX];
    if (!find_file(name, path, sizeof path)) {
        ap_error_set(err, AP_ERR_NOTFOUND, "backend %s: the plug-in antipode-%s.so is not installed", name, name);
        ap_error_hint(err, "configure with --with-%s and install, set ANTIPODE_PLUGINDIR, or use backend: cpu", name);
        return AP_ERR_NOTFOUND;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        ap_error_set(err, AP_ERR_ENV, "backend %s: the plug-in does not load: %s", name, dlerror());
        ap_error_hint(err, "install what it names (the CUDA runtime libraries), or use backend: cpu");
        return AP_ERR_ENV;
    }
    ap_backend_plugin_fn *entry = NULL;
    void *symbol = dlsym(library, AP_BACKEND_PLUGIN_SYMBOL);
    if (symbol)
        memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from object to function pointers */
    const struct ap_backend_ops *vt = entry ? entry() : NULL;
    AP_TRY(check(name, path, vt, err));
    *vt_p = vt;
    return AP_OK;
}
