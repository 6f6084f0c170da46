/* SPDX-License-Identifier: Apache-2.0
 * Opens a backend and says what came of it. Usage: open_backend NAME [DEVICE [add]]
 * Prints "opened NAME", or "STATUS: text | hint". With add: launches one addition and prints the status of the
 * launch and of the synchronisation. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

static int run_add(struct ap_backend *be)
{
    static const float one[4] = {1, 2, 3, 4};
    float sum[4] = {0};
    void *mem = NULL;
    if (be->vt->alloc(be, sizeof(one), &mem) != AP_OK || be->vt->copy(be->stream, mem, one, sizeof(one)) != AP_OK) {
        printf("no memory\n");
        return 1;
    }
    ap_tensor t = ap_tensor_1d(mem, AP_F32, 4);
    struct ap_add_args a = {t, t, t};
    ap_status launch = be->ops.add(be->stream, &a), sync = be->vt->stream_sync(be->stream);
    if (sync == AP_OK && be->vt->copy(be->stream, sum, mem, sizeof(sum)) == AP_OK)
        sync = be->vt->stream_sync(be->stream);
    printf("launch %s, synchronisation %s, last sum %g\n", ap_status_name(launch), ap_status_name(sync),
           (double)sum[3]);
    be->vt->release(be, mem);
    return 0;
}

int main(int argc, char **argv)
{
    struct ap_backend *be = NULL;
    struct ap_error err = {0};
    if (argc < 2) {
        fprintf(stderr, "usage: open_backend NAME [DEVICE [add]]\n");
        return 2;
    }
    ap_status status = ap_backend_open(argv[1], argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0, NULL, &be, &err);
    if (status != AP_OK) {
        printf("%s: %s | %s\n", ap_status_name(status), err.text, err.hint);
        return 1;
    }
    printf("opened %s\n", be->vt->name);
    int code = argc > 3 && strcmp(argv[3], "add") == 0 ? run_add(be) : 0;
    ap_backend_close(be);
    return code;
}
