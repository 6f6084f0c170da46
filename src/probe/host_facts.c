/* SPDX-License-Identifier: Apache-2.0
 * hwloc's view of this process. */
#include "config.h"

#include <ctype.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe/host_facts.h"

/* " NUMA 0-1": the objects of a type that the set touches, as a range of their numbers. */
static int add_objects(hwloc_topology_t topo, hwloc_const_cpuset_t set, hwloc_obj_type_t type, const char *name,
                       struct ap_probe_fact *f)
{
    int first = -1, last = -1, all = hwloc_get_nbobjs_by_type(topo, type);
    for (int i = 0; i < all; i++) {
        hwloc_obj_t o = hwloc_get_obj_by_type(topo, type, (unsigned)i);
        if (o == NULL || o->cpuset == NULL || !hwloc_bitmap_intersects(o->cpuset, set))
            continue;
        first = first < 0 ? i : first;
        last = i;
    }
    size_t at = strlen(f->place);
    if (first < 0)
        return 0;
    if (first == last)
        snprintf(f->place + at, sizeof f->place - at, "%s%s %d", at > 0 ? ", " : "", name, first);
    else
        snprintf(f->place + at, sizeof f->place - at, "%s%s %d-%d", at > 0 ? ", " : "", name, first, last);
    return 1;
}

/* The number-th GPU that hwloc shows as one; its memory if that is known. */
static void find_gpu(hwloc_topology_t topo, int number, struct ap_probe_fact *f)
{
    hwloc_obj_t o = NULL;
    snprintf(f->device, sizeof f->device, "gpu");
    f->memory = 0;
    while ((o = hwloc_get_next_osdev(topo, o)) != NULL) {
        const char *cuda = hwloc_obj_get_info_by_name(o, "CUDAGlobalMemorySize");
        const char *nvml = hwloc_obj_get_info_by_name(o, "GPUModel");
        if ((cuda == NULL && nvml == NULL) || o->name == NULL || strncmp(o->name, "cuda", 4) != 0 || number-- > 0)
            continue;
        if (nvml != NULL)
            snprintf(f->device, sizeof f->device, "%.15s", nvml);
        if (cuda != NULL)
            f->memory = strtod(cuda, NULL) * 1024;
        break;
    }
    for (char *c = f->device; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c))
            *c = '-';
}

static void look(hwloc_topology_t topo, hwloc_cpuset_t set, int gpu, struct ap_probe_fact *f)
{
    hwloc_obj_t machine = hwloc_get_root_obj(topo);
    if (hwloc_get_cpubind(topo, set, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(set, hwloc_topology_get_topology_cpuset(topo));
    f->cpus = hwloc_bitmap_weight(set);
    add_objects(topo, set, HWLOC_OBJ_PACKAGE, "socket", f);
    add_objects(topo, set, HWLOC_OBJ_NUMANODE, "NUMA", f);
    add_objects(topo, set, HWLOC_OBJ_CORE, "cores", f);
    f->memory = (double)machine->total_memory;
    snprintf(f->device, sizeof f->device, "cpu");
    if (gpu >= 0)
        find_gpu(topo, gpu, f);
}

ap_status ap_host_facts(int gpu, struct ap_probe_fact *fact_p, struct ap_error *err)
{
    hwloc_topology_t topo;
    struct ap_probe_fact f = {0};
    if (gethostname(f.host, sizeof f.host - 1) != 0)
        snprintf(f.host, sizeof f.host, "host");
    if (hwloc_topology_init(&topo) != 0)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for hwloc");
    hwloc_topology_set_io_types_filter(topo, gpu >= 0 ? HWLOC_TYPE_FILTER_KEEP_IMPORTANT : HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    ap_status status = AP_OK;
    if (set == NULL || hwloc_topology_load(topo) != 0)
        status = ap_error_set(err, AP_ERR_ENV, "hwloc cannot tell what this machine is made of");
    else
        look(topo, set, gpu, &f);
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(topo);
    if (status == AP_OK)
        *fact_p = f;
    return status;
}
