/* SPDX-License-Identifier: Apache-2.0
 * Search for the program's own files. */
#include "config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/paths.h"

int ap_paths_exe_dir(char *buf, size_t size)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return -1;
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash == NULL)
        return -1;
    *slash = '\0';
    return snprintf(buf, size, "%s", exe) < (int)size ? 0 : -1;
}

static int near_exe(const char *relative, char *buf, size_t size)
{
    char dir[PATH_MAX];
    if (ap_paths_exe_dir(dir, sizeof dir) != 0)
        return 0;
    return snprintf(buf, size, "%s/%s", dir, relative) < (int)size;
}

int ap_paths_data_dir(int index, char *buf, size_t size)
{
    static const char *const near[] = {"inputs", "../inputs", "../../inputs", "../share/antipode",
                                       "../../share/antipode"};
    if (index == 0) {
        const char *env = getenv("ANTIPODE_DATADIR");
        return env != NULL && env[0] != '\0' && snprintf(buf, size, "%s", env) < (int)size;
    }
    if (index <= (int)(sizeof near / sizeof near[0]))
        return near_exe(near[index - 1], buf, size);
    if (index == AP_PATHS_DATA_DIRS - 1)
        return snprintf(buf, size, "%s", AP_PKGDATADIR) < (int)size;
    return -1;
}

int ap_paths_find_data(const char *relative, char *buf, size_t size)
{
    char dir[PATH_MAX];
    for (int i = 0; i < AP_PATHS_DATA_DIRS; i++) {
        if (ap_paths_data_dir(i, dir, sizeof dir) != 1)
            continue;
        if (snprintf(buf, size, "%s/%s", dir, relative) < (int)size && access(buf, R_OK) == 0)
            return 0;
    }
    return -1;
}

int ap_paths_find_program(const char *name, char *buf, size_t size)
{
    char relative[PATH_MAX];
    static const char *const near[] = {"", "../libexec/antipode/"};
    for (size_t i = 0; i < sizeof near / sizeof near[0]; i++) {
        snprintf(relative, sizeof relative, "%s%s", near[i], name);
        if (near_exe(relative, buf, size) && access(buf, X_OK) == 0)
            return 0;
    }
    if (snprintf(buf, size, "%s/%s", AP_PKGLIBEXECDIR, name) < (int)size && access(buf, X_OK) == 0)
        return 0;
    return -1;
}
