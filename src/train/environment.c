/* SPDX-License-Identifier: Apache-2.0
 * Record of the environment. */
#include "config.h"

#include <gnu/libc-version.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/io.h"
#include "train/environment.h"

const char *ap_environment_isa(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return "avx512f";
    if (__builtin_cpu_supports("avx2"))
        return "avx2";
    return "sse2";
#elif defined(__aarch64__)
    return "aarch64";
#else
    return "generic";
#endif
}

int64_t ap_environment_cpus(int64_t *online_p)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t set;
    if (online_p)
        *online_p = online > 0 ? online : 1;
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return online > 0 ? online : 1;
}

int ap_environment_threads(int node_ranks)
{
    int64_t online = 1, cpus = ap_environment_cpus(&online);
    int64_t n = cpus < online || node_ranks < 1 ? cpus : cpus / node_ranks;
    return n < 1 ? 1 : (int)n;
}

int64_t ap_environment_memory(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (int64_t)u.ru_maxrss * 1024 : 0;
}

/* "model name : X" of /proc/cpuinfo; "unknown" where it does not stand. */
static void cpu_model(char *buf, size_t size)
{
    char *text = NULL;
    size_t n = 0;
    snprintf(buf, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        return;
    while (getline(&text, &n, f) > 0) {
        char *colon = strchr(text, ':');
        if (strncmp(text, "model name", 10) != 0 || !colon)
            continue;
        colon += strspn(colon, ": \t");
        snprintf(buf, size, "%.*s", (int)strcspn(colon, "\n"), colon);
        break;
    }
    free(text);
    fclose(f);
}

ap_status ap_environment_hosts(struct ap_comm *comm, char **names_p)
{
    char *names = calloc((size_t)comm->size, AP_HOST_NAME);
    int64_t *bytes = calloc((size_t)comm->size, sizeof(*bytes));
    ap_status st = ap_comm_agree(comm, names && bytes ? AP_OK : AP_ERR_NOMEM, NULL, NULL);
    if (st == AP_OK) {
        char *own = names + (size_t)comm->rank * AP_HOST_NAME;
        gethostname(own, AP_HOST_NAME - 1);
        for (int r = 0; r < comm->size; r++)
            bytes[r] = AP_HOST_NAME;
        st = ap_comm_allgatherv(comm, own, bytes, names);
    }
    free(bytes);
    if (st != AP_OK) {
        free(names);
        return st;
    }
    *names_p = names;
    return AP_OK;
}

ap_status ap_environment_gather(struct ap_comm *comm, const char *mpi_version, struct ap_environment *e_p)
{
    struct ap_environment e = {.ranks = comm->size};
    struct utsname u = {0};
    enum { WIDTH = AP_HOST_NAME };
    char *names = NULL;
    ap_status st = ap_environment_hosts(comm, &names);
    for (int r = 0; st == AP_OK && r < comm->size; r++) {
        int seen = 0;
        for (int k = 0; k < r && !seen; k++)
            seen = strcmp(names + (size_t)k * WIDTH, names + (size_t)r * WIDTH) == 0;
        e.hosts += !seen;
    }
    if (st == AP_OK) {
        uname(&u);
        snprintf(e.first_host, sizeof(e.first_host), "%s", names);
        snprintf(e.kernel, sizeof(e.kernel), "%.60s %.60s", u.sysname, u.release);
        snprintf(e.libc, sizeof(e.libc), "glibc %s", gnu_get_libc_version());
        snprintf(e.mpi, sizeof(e.mpi), "%s", mpi_version ? mpi_version : "none");
        snprintf(e.isa, sizeof(e.isa), "%s", ap_environment_isa());
        cpu_model(e.cpu_model, sizeof(e.cpu_model));
        e.cpus = ap_environment_cpus(NULL);
        *e_p = e;
    }
    free(names);
    return st;
}

void ap_environment_json(const struct ap_environment *e, const char *key, struct ap_json *j)
{
    ap_json_begin_object(j, key);
    ap_json_str(j, "antipode", PACKAGE_VERSION);
    ap_json_str(j, "commit", AP_GIT_COMMIT);
    ap_json_str(j, "compiler", __VERSION__);
    ap_json_int(j, "hosts", e->hosts);
    ap_json_str(j, "first_host", e->first_host);
    ap_json_int(j, "ranks", e->ranks);
    ap_json_int(j, "cpus", e->cpus);
    ap_json_str(j, "cpu_model", e->cpu_model);
    ap_json_str(j, "isa", e->isa);
    ap_json_str(j, "kernel", e->kernel);
    ap_json_str(j, "libc", e->libc);
    ap_json_str(j, "mpi", e->mpi);
    ap_json_end_object(j);
}
