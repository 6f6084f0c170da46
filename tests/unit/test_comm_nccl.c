/* SPDX-License-Identifier: Apache-2.0
 * The NCCL communicator over virtual ones, on devices and with a library that are ours (tests/support/fake_device.h,
 * fake_nccl.c): what every communicator does; sums; the reduction through a device side with the bits of the host's;
 * what is refused and why; failures of a rank in set-up and in operations, none of which hangs, and what comes after.
 */
#include "config.h"

#include <unistd.h>

#include "../support/comm_conformance.h"
#include "../support/fake_device.h"
#include "../support/fewer.h"
#include "../support/leaks.h"
#include "parallel/comm_nccl.h"
#include "parallel/exchange.h"
#include "parallel/mesh_device.h"
#include "parallel/nccl_api.h"
#include "parallel/zero.h"

#define FAULT "AP_FAKE_NCCL"

TestSuite(nccl, .timeout = 60);

/* A body with its device; v->comm is the NCCL communicator, parent the virtual one. */
struct device_rank {
    struct vrank v; /* first */
    struct ap_comm *parent;
    struct fake_device device;
};
enum { LONG = 50 };              /* seconds: no test waits for them */
static const double SHORT = 0.2; /* where what is waited for cannot come */

static void on_device(struct vrank *v)
{
    struct ap_error err = {0};
    struct device_rank d = {.parent = v->comm};
    memcpy(&d.v.fn, v->ctx, sizeof(d.v.fn));
    VCHECK(v, fake_device_open(&d.device, v->comm->rank) == AP_OK);
    ap_status st = ap_comm_nccl_create(v->comm, d.device.be, LONG, &d.v.comm, &err);
    if (st != AP_OK && !v->fail[0])
        snprintf(v->fail, sizeof(v->fail), "rank %d: %.200s", v->comm->rank, err.text);
    if (st == AP_OK) {
        d.v.fn(&d.v);
        memcpy(v->fail, d.v.fail, sizeof(v->fail));
        VCHECK(v, ap_comm_barrier(v->comm) == AP_OK);
        ap_comm_destroy(d.v.comm);
    }
    fake_device_close(&d.device);
}

static void use_library(const char *path)
{
    cr_assert_eq(setenv(AP_NCCL_ENV, path, 1), 0);
}

static void run(int ranks, void (*fn)(struct vrank *v))
{
    use_library(AP_TEST_FAKE_NCCL);
    vranks_run(ranks, on_device, &fn);
}

static void right_messages(struct vrank *v)
{
    VCHECK(v, check_messages(v->comm) == 0);
    VCHECK(v, check_messages(v->comm) == 0); /* on lanes that are there */
}

AP_TEST(nccl, conforms)
{
    int most = fewer("ranks", 4, 2);
    for (int n = 1; n <= most; n++) {
        run(n, conform_collectives);
        run(n, conform_exchange);
        run(n, conform_splits);
        run(n, right_messages);
        run(n, conform_pipelines);
    }
    run(1, conform_messages); /* wrong ones too: between ranks they break a device communicator */
    run(3, conform_agreement);
}

static void wrong_length(struct vrank *v)
{
    struct ap_comm *c = v->comm;
    struct ap_comm_request r;
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int first = 0; first < 2; first++) { /* on a lane that is connected, then on a new one */
        VCHECK(v, c->rank == 0 ? ap_comm_send_start(c, data, 8, 1, 1, &r) == AP_OK && ap_comm_wait(c, &r) == AP_OK
                               : ap_comm_recv_start(c, data, 8, 0, 1, &r) == AP_OK && ap_comm_wait(c, &r) == AP_OK);
        if (c->rank == 1)
            VCHECK(v, ap_comm_recv_start(c, data, 8, 0, 1 + first, &r) == AP_OK);
        VCHECK(v, ap_comm_barrier(c) == AP_OK);
        if (c->rank == 0) {
            ap_comm_nccl_timeout(c, SHORT);
            VCHECK(v, ap_comm_send_start(c, data, 4, 1, 1 + first, &r) == AP_OK);
            (void)ap_comm_wait(c, &r); /* may have left before it was looked at */
        } else {
            VCHECK(v, ap_comm_wait(c, &r) == AP_ERR_BUG);
            VCHECK(v, ap_comm_recv_start(c, data, 8, 0, 1, &r) == AP_ERR_COMM);
        }
        ap_comm_nccl_timeout(c, LONG);
        VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_OK);
    }
}

AP_TEST(nccl, a_message_of_another_length_is_an_error)
{
    run(2, wrong_length);
}

AP_TEST(nccl, meshes)
{
    run(1, conform_meshes);
    run(2, conform_meshes);
    if (fewer("ranks of meshes", 4, 2) == 4)
        run(4, conform_meshes);
}

/* More than one of the stand-in's chunks, from and to memory of the device. */
static void large(struct vrank *v)
{
    struct ap_backend *be = ((struct device_rank *)v)->device.be;
    enum { EACH = 100003 };
    int n = v->comm->size, r = v->comm->rank;
    int64_t bytes[VRANKS_MAX];
    uint8_t *all = NULL;
    VCHECK(v, be->vt->alloc(be, (size_t)n * EACH, (void **)&all) == AP_OK);
    for (int i = 0; i < n; i++)
        bytes[i] = EACH;
    memset(all, 0, (size_t)n * EACH);
    memset(all + (size_t)r * EACH, r + 1, EACH);
    VCHECK(v, ap_comm_allgatherv(v->comm, all + (size_t)r * EACH, bytes, all) == AP_OK);
    for (int64_t i = 0; i < (int64_t)n * EACH; i += 17)
        VCHECK(v, all[i] == i / EACH + 1);
    memset(all, r == 1 ? 77 : 0, (size_t)n * EACH);
    VCHECK(v, ap_comm_bcast(v->comm, all, (int64_t)n * EACH, 1) == AP_OK);
    VCHECK(v, all[0] == 77 && all[n * EACH - 1] == 77);
    be->vt->release(be, all);
}

AP_TEST(nccl, large_parts)
{
    run(3, large);
}

static void sums(struct vrank *v)
{
    struct ap_comm *c = v->comm;
    int n = c->size, r = c->rank;
    float x[5];
    double parts[VRANKS_MAX * 2], own[2] = {0};
    for (int i = 0; i < 5; i++)
        x[i] = (float)(r + 10 * i);
    VCHECK(v, ap_comm_nccl_sum(c, ap_tensor_1d(x, AP_F32, 5)) == AP_OK);
    for (int i = 0; i < 5; i++)
        VCHECK(v, x[i] == (float)(n * (n - 1) / 2 + 10 * i * n));
    for (int i = 0; i < n * 2; i++)
        parts[i] = r + 100.0 * i;
    VCHECK(v, ap_comm_nccl_sum_scatter(c, ap_tensor_1d(parts, AP_F64, n * 2), ap_tensor_1d(own, AP_F64, 2)) == AP_OK);
    for (int i = 0; i < 2; i++)
        VCHECK(v, own[i] == n * (n - 1) / 2 + 100.0 * (2 * r + i) * n);
    VCHECK(v, ap_comm_nccl_sum(c, ap_tensor_1d(x, AP_I32, 5)) == AP_ERR_UNSUPPORTED);
    VCHECK(v, ap_comm_nccl_sum_scatter(c, ap_tensor_1d(parts, AP_F64, n), ap_tensor_1d(own, AP_F64, 2)) == AP_ERR_BUG);
}

AP_TEST(nccl, sums)
{
    for (int n = 1; n <= 3; n++)
        run(n, sums);
}

/* A communicator with and without a device side: gradients, weights and rows come out the same, bit for bit. */
enum { FLAT = 61, LEAVES = 7 };

static void reduce_rows(struct vrank *v, struct ap_comm *c, float *all, float *rows)
{
    struct ap_backend *be = ((struct device_rank *)v)->device.be;
    struct ap_reducer *r = NULL;
    struct ap_gatherer *g = NULL;
    struct ap_exchange *x = NULL;
    int64_t begin[VRANKS_MAX + 1], lo = 0, hi = 0, counts[VRANKS_MAX];
    for (int i = 0; i <= c->size; i++)
        begin[i] = (int64_t)FLAT * i / c->size;
    struct ap_shard_map map = {c->size, begin};
    struct ap_reducer_options opt = {be, c, &map, AP_F32, LEAVES, NULL, 9};
    VCHECK(v, ap_reducer_create(&opt, &r, NULL) == AP_OK && ap_gatherer_create(be, c, &map, AP_F32, &g) == AP_OK);
    ap_reducer_leaves(r, &lo, &hi);
    for (int64_t leaf = lo; leaf < hi; leaf++) {
        ap_tensor grads = {0};
        VCHECK(v, ap_reducer_begin_leaf(r, &grads) == AP_OK);
        for (int64_t i = 0; i < FLAT; i++)
            ((float *)grads.data)[i] = (float)(1.0 / (double)(1 + i * LEAVES + leaf));
        VCHECK(v, ap_reducer_end_leaf(r) == AP_OK);
    }
    ap_tensor shard = {0};
    VCHECK(v, ap_reducer_finish(r, &shard) == AP_OK);
    memcpy(all + begin[c->rank], shard.data, (size_t)ap_tensor_count(&shard) * sizeof(float));
    VCHECK(v, ap_gatherer_run(g, ap_tensor_1d(all, AP_F32, FLAT)) == AP_OK);
    /* parts [size, 3], one row for each */
    float parts[VRANKS_MAX * 3], scratch[VRANKS_MAX * 3];
    for (int i = 0; i < c->size; i++)
        counts[i] = 1;
    for (int i = 0; i < c->size * 3; i++)
        parts[i] = 1.0f / (float)(3 + i + c->rank);
    VCHECK(v, ap_exchange_create(be, c, &x) == AP_OK);
    VCHECK(v, ap_exchange_sum(x, ap_tensor_2d(parts, AP_F32, c->size, 3), counts,
                              ap_tensor_2d(scratch, AP_F32, c->size, 3), ap_tensor_2d(rows, AP_F32, 1, 3), 0) == AP_OK);
    ap_exchange_destroy(x);
    ap_gatherer_destroy(g);
    ap_reducer_destroy(r);
}

static void both_sides(struct vrank *v)
{
    struct ap_comm *parent = ((struct device_rank *)v)->parent;
    float host[FLAT] = {0}, device[FLAT] = {0}, rows[2][3] = {{0}};
    reduce_rows(v, parent, host, rows[0]);
    parent->device = v->comm;
    reduce_rows(v, parent, device, rows[1]);
    parent->device = NULL;
    VCHECK(v, memcmp(host, device, sizeof(host)) == 0 && host[FLAT - 1] != 0);
    VCHECK(v, memcmp(rows[0], rows[1], sizeof(rows[0])) == 0 && rows[0][2] != 0);
}

AP_TEST(nccl, the_bits_are_those_of_the_host_path)
{
    for (int n = 1; n <= 4; n++)
        run(n, both_sides);
}

/* What is refused, on all ranks alike. v->ctx: a text of the message. */
static void refused(struct vrank *v)
{
    struct fake_device d;
    struct ap_error err = {0};
    struct ap_comm *c = NULL;
    VCHECK(v, fake_device_open(&d, getenv("AP_TEST_SAME_DEVICE") ? 0 : v->comm->rank) == AP_OK);
    if (getenv("AP_TEST_NO_DEVICE") && v->comm->rank == 1)
        d.vt.device = NULL;
    ap_status st = ap_comm_nccl_create(v->comm, d.be, LONG, &c, &err);
    VCHECK(v, st == AP_ERR_ENV || st == AP_ERR_UNSUPPORTED);
    if (!strstr(err.text, v->ctx) && !v->fail[0])
        snprintf(v->fail, sizeof(v->fail), "rank %d: %.200s", v->comm->rank, err.text);
    VCHECK(v, st == AP_ERR_UNSUPPORTED || err.hint[0]);
    VCHECK(v, !c && ap_comm_nccl_possible(v->comm, d.be, NULL, 0, NULL) == st);
    fake_device_close(&d);
}

static void refuse(char *text)
{
    vranks_run(2, refused, text);
}

AP_TEST(nccl, is_refused_with_the_reason)
{
    cr_assert_eq(unsetenv(AP_NCCL_ENV), 0);
    refuse("no NCCL for this kind of device");
    use_library("/nowhere/libnccl.so.2");
    refuse("NCCL does not load");
    use_library(AP_TEST_FAKE_NCCL_OLD);
    refuse("no function ncclCommInitRankConfig");
    use_library(AP_TEST_FAKE_NCCL);
    setenv("AP_FAKE_NCCL_VERSION", "21003", 1);
    refuse("NCCL is 2.10.3: at least 2.14");
    setenv("AP_FAKE_NCCL_VERSION", "2804", 1);
    refuse("NCCL is 2.8.4");
    unsetenv("AP_FAKE_NCCL_VERSION");
    setenv("AP_TEST_SAME_DEVICE", "1", 1);
    refuse("ranks 0 and 1 are both on device fake 0");
    unsetenv("AP_TEST_SAME_DEVICE");
    setenv("AP_TEST_NO_DEVICE", "1", 1);
    refuse("backend fake has no memory of a device");
}

/* All ranks; what is set holds for all afterwards. fault NULL: none. c: the communicator that is to fail soon, or NULL.
 */
static void set_fault(struct ap_comm *host, struct ap_comm *c, const char *fault)
{
    if (c)
        ap_comm_nccl_timeout(c, fault ? SHORT : LONG);
    (void)ap_comm_barrier(host);
    if (host->rank == 0 && fault)
        setenv(FAULT, fault, 1);
    else if (host->rank == 0)
        unsetenv(FAULT);
    (void)ap_comm_barrier(host);
}

/* A set-up that a rank does not come to, or that fails on it; the next is well. */
static void broken_setup(struct vrank *v)
{
    static const char *const fault[2] = {"init_hang@1", "init_error@1"};
    struct fake_device d;
    struct ap_comm *c = NULL;
    VCHECK(v, fake_device_open(&d, v->comm->rank) == AP_OK);
    for (int i = 0; i < 2; i++) {
        struct ap_error err = {0};
        set_fault(v->comm, NULL, fault[i]);
        VCHECK(v, ap_comm_nccl_create(v->comm, d.be, SHORT, &c, &err) == AP_ERR_COMM && !c);
        VCHECK(v, strstr(err.text, "NCCL on rank 0 of 3: the connection of the ranks did not end within 0.2 s"));
        VCHECK(v, strstr(err.hint, "NCCL_DEBUG"));
    }
    set_fault(v->comm, NULL, NULL);
    VCHECK(v, ap_comm_nccl_create(v->comm, d.be, LONG, &c, NULL) == AP_OK);
    if (c) {
        struct vrank inner = {.comm = c};
        conform_collectives(&inner);
        VCHECK(v, !inner.fail[0] && ap_comm_barrier(v->comm) == AP_OK);
    }
    ap_comm_destroy(c);
    fake_device_close(&d);
}

AP_TEST(nccl, a_set_up_that_fails_is_an_error_on_all_ranks_and_no_hang)
{
    use_library(AP_TEST_FAKE_NCCL);
    vranks_run(3, broken_setup, NULL);
}

static ap_status gather_bytes(struct ap_comm *c)
{
    int64_t eight[VRANKS_MAX], all[VRANKS_MAX] = {0}, own = c->rank + 1;
    ap_status st;
    for (int i = 0; i < c->size; i++)
        eight[i] = sizeof(own);
    st = ap_comm_allgatherv(c, &own, eight, all);
    for (int i = 0; st == AP_OK && i < c->size; i++)
        if (all[i] != i + 1)
            st = AP_ERR_BUG;
    return st;
}

/* An operation that fails on one rank: no rank hangs, what the host carries goes on, and a renewal mends it. */
static void broken_operation(struct vrank *v)
{
    static const char *const faults[] = {"stall@1", "async@0", "async@2"};
    struct ap_comm *c = v->comm, *parent = ((struct device_rank *)v)->parent;
    struct ap_comm_request r;
    int64_t x = 1;
    int who = -1;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct ap_error err = {0};
        VCHECK(v, gather_bytes(c) == AP_OK);
        set_fault(parent, c, faults[i]);
        VCHECK(v, gather_bytes(c) == AP_ERR_COMM);
        VCHECK(v, ap_comm_bcast(c, &x, sizeof(x), 0) == AP_ERR_COMM);
        VCHECK(v, ap_comm_send_start(c, &x, sizeof(x), 0, 0, &r) == AP_ERR_COMM && ap_comm_wait(c, &r) == AP_ERR_COMM);
        VCHECK(v, ap_comm_agree(c, c->rank == 2 ? AP_ERR_NUMERIC : AP_OK, &who, &err) == AP_ERR_NUMERIC && who == 2);
        set_fault(parent, c, NULL);
        VCHECK(v, ap_comm_nccl_renew(c, &err) == AP_OK);
    }
    conform_exchange(v);
    right_messages(v);
    set_fault(parent, c, "init_hang@1");
    VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_ERR_COMM && gather_bytes(c) == AP_ERR_COMM);
    x = 2;
    VCHECK(v, ap_comm_sum_i64(c, &x, 1) == AP_OK && x == 2 * c->size);
    set_fault(parent, c, NULL);
    VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_OK && gather_bytes(c) == AP_OK);
}

AP_TEST(nccl, a_failed_operation_aborts_and_a_renewal_mends)
{
    run(3, broken_operation);
}

/* Messages: a peer that never sends, one whose data does not move, an abort with messages under way, a cancelled one.
 */
static void broken_messages(struct vrank *v)
{
    struct ap_comm *c = v->comm, *parent = ((struct device_rank *)v)->parent;
    struct ap_comm_request s, r;
    int next = (c->rank + 1) % c->size, last = (c->rank + c->size - 1) % c->size;
    double out[8] = {3}, in[8] = {0};
    ap_comm_nccl_timeout(c, SHORT);
    VCHECK(v, ap_comm_recv_start(c, in, sizeof(in), last, 5, &r) == AP_OK);
    VCHECK(v, ap_comm_wait(c, &r) == AP_ERR_COMM);
    ap_comm_nccl_timeout(c, LONG);
    VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_OK);

    ap_comm_nccl_timeout(c, SHORT);
    VCHECK(v, ap_comm_recv_start(c, in, sizeof(in), last, 5, &r) == AP_OK);
    VCHECK(v, wait_by_tests(c, &r) == AP_ERR_COMM);
    ap_comm_nccl_timeout(c, LONG);
    VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_OK);

    set_fault(parent, c, "stall@0"); /* the sender's side of every lane */
    VCHECK(v, ap_comm_recv_start(c, in, sizeof(in), last, 5, &r) == AP_OK);
    VCHECK(v, ap_comm_send_start(c, out, sizeof(out), next, 5, &s) == AP_OK);
    VCHECK(v, ap_comm_wait(c, &r) == AP_ERR_COMM && ap_comm_wait(c, &s) == AP_ERR_COMM);
    set_fault(parent, c, NULL);
    VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_OK);

    VCHECK(v, ap_comm_recv_start(c, in, sizeof(in), last, 5, &r) == AP_OK);
    VCHECK(v, ap_comm_send_start(c, out, sizeof(out), next, 6, &s) == AP_OK);
    VCHECK(v, ap_comm_barrier(parent) == AP_OK);
    ap_comm_nccl_abort(c);
    VCHECK(v, ap_comm_wait(c, &r) == AP_ERR_COMM);
    ap_comm_cancel(c, &s);
    VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_OK);
    in[0] = 0;
    VCHECK(v, ap_comm_recv_start(c, in, sizeof(in), last, 5, &r) == AP_OK);
    VCHECK(v, ap_comm_send_start(c, out, sizeof(out), next, 5, &s) == AP_OK);
    VCHECK(v, ap_comm_wait(c, &r) == AP_OK && ap_comm_wait(c, &s) == AP_OK && in[0] == 3);
}

AP_TEST(nccl, messages_that_do_not_come_are_errors)
{
    run(3, broken_messages);
}

/* Rank 1 is gone: its parent too. The others find out by their deadline. */
static void leaver(struct vrank *v)
{
    struct fake_device d;
    struct ap_comm *c = NULL;
    struct ap_comm_request r;
    int64_t x = 0;
    VCHECK(v, fake_device_open(&d, v->comm->rank) == AP_OK);
    VCHECK(v, ap_comm_nccl_create(v->comm, d.be, LONG, &c, NULL) == AP_OK);
    if (c && v->comm->rank != 1) {
        ap_comm_nccl_timeout(c, SHORT);
        if (v->comm->rank == 0) {
            VCHECK(v, ap_comm_recv_start(c, &x, sizeof(x), 1, 0, &r) == AP_OK && ap_comm_wait(c, &r) == AP_ERR_COMM);
        }
        VCHECK(v, gather_bytes(c) == AP_ERR_COMM);
        VCHECK(v, ap_comm_nccl_renew(c, NULL) == AP_ERR_COMM);
    }
    ap_comm_destroy(c);
    fake_device_close(&d);
}

AP_TEST(nccl, a_rank_that_left_is_an_error_and_no_hang)
{
    use_library(AP_TEST_FAKE_NCCL);
    vranks_run(3, leaver, NULL);
}

/* Device sides stand where a mesh of 2 x 2 moves tensors, and only if they come up everywhere. */
static void attached(struct vrank *v)
{
    struct fake_device d;
    struct ap_mesh *m = NULL;
    struct ap_backend *host = NULL;
    struct ap_mesh_shape shape = {{1, 2, 1, 2}};
    struct ap_error err = {0};
    VCHECK(v, fake_device_open(&d, v->comm->rank) == AP_OK);
    VCHECK(v, ap_mesh_create(v->comm, &shape, NULL, &m, &err) == AP_OK);
    VCHECK(v, ap_mesh_attach(m, d.be, AP_MESH_PATH_MPI, LONG, &err) == AP_OK && !m->batch->device);
    VCHECK(v, ap_mesh_attach(m, d.be, AP_MESH_PATH_NCCL, LONG, &err) == AP_OK);
    VCHECK(v, m->axis[AP_AXIS_TENSOR]->device && m->batch->device && m->stage->device && !m->world->device);
    VCHECK(v, !m->axis[AP_AXIS_PIPE]->device && !m->axis[AP_AXIS_DATA]->device && !m->ends);
    VCHECK(v, m->batch->device && gather_bytes(m->batch->device) == AP_OK);
    VCHECK(v, ap_comm_barrier(v->comm) == AP_OK);
    ap_mesh_detach(m);
    VCHECK(v, !m->axis[AP_AXIS_TENSOR]->device && !m->batch->device && !m->stage->device);
    set_fault(v->comm, NULL, "init_error@1");
    VCHECK(v,
           ap_mesh_attach(m, d.be, AP_MESH_PATH_NCCL, SHORT, &err) == AP_ERR_COMM && strstr(err.text, "NCCL on rank"));
    VCHECK(v, ap_mesh_attach(m, d.be, AP_MESH_PATH_AUTO, SHORT, &err) == AP_OK);
    VCHECK(v, !m->axis[AP_AXIS_TENSOR]->device && !m->batch->device && !m->stage->device);
    set_fault(v->comm, NULL, NULL);
    VCHECK(v, ap_mesh_attach(m, d.be, AP_MESH_PATH_AUTO, LONG, &err) == AP_OK && m->batch->device);
    VCHECK(v, ap_comm_barrier(v->comm) == AP_OK);
    ap_mesh_detach(m);
    VCHECK(v, ap_backend_open("cpu", 0, NULL, &host, NULL) == AP_OK);
    VCHECK(v, ap_mesh_attach(m, host, AP_MESH_PATH_AUTO, LONG, &err) == AP_OK && !m->batch->device);
    VCHECK(v,
           ap_mesh_attach(m, host, AP_MESH_PATH_NCCL, LONG, &err) == AP_ERR_INPUT && strstr(err.text, "backend cpu"));
    ap_backend_close(host);
    ap_mesh_destroy(m);
    fake_device_close(&d);
}

AP_TEST(nccl, a_mesh_gets_device_sides_where_it_moves_tensors)
{
    use_library(AP_TEST_FAKE_NCCL);
    vranks_run(4, attached, NULL);
}

/* The library itself, where one of its files lies: found, new enough, with all functions. */
AP_TEST(nccl, loads_the_real_library)
{
#ifdef AP_CUDA_LIBDIR
    struct ap_nccl api = {0};
    struct ap_error err = {0};
    char text[32];
    cr_assert_eq(unsetenv(AP_NCCL_ENV), 0);
    if (access(AP_CUDA_LIBDIR "/libnccl.so.2", R_OK) != 0)
        cr_skip_test("no libnccl.so.2 beside the CUDA toolkit");
    cr_assert_eq(ap_nccl_load("libnccl.so.2", &api, &err), AP_OK, "%s", err.text);
    cr_expect(api.version >= AP_NCCL_OLDEST, "%s", ap_nccl_version_text(api.version, text, sizeof(text)));
#else
    cr_skip_test("no CUDA toolkit in this build");
#endif
}
