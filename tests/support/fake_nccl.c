/* SPDX-License-Identifier: Apache-2.0
 * A stand-in for libnccl.so.2 on the emulated devices: the functions that antipode loads, over memory shared by the
 * ranks (threads or processes). As NCCL does with blocking = 0, a call returns "in progress" first, is taken by the
 * stream some polls later, and ends when the peers have come; work advances when its stream or communicator is looked
 * at. Operations of one communicator run one after the other, those of a group together; two sides that do not fit are
 * an error.
 *
 * AP_FAKE_NCCL=FAULT@RANK breaks that rank of every communicator made or used from then on:
 *   init_hang    it never comes to the set-up          init_error   its set-up fails
 *   async        its next operation fails later        stall        its operations never advance
 * AP_FAKE_NCCL_VERSION sets the version. With FAKE_NCCL_OLD a function is missing. AP_FAKE_NCCL_LOG names a file that
 * gets the number of bytes sent by this process when its last communicator ends. */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emu_stream.h"

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6, IN_PROGRESS = 7 };
enum { UINT8 = 1, F32 = 7, F64 = 8, BF16 = 9 };
enum { CHUNK = 32768, MOST_OPS = 64, POLLS = 2 };

/* What one rank has for another. */
struct box {
    atomic_int full;
    int kind;
    uint64_t total; /* of the whole operation */
    uint32_t bytes; /* here */
    unsigned char data[CHUNK];
};

struct shared {
    atomic_int joined;
    struct box box[]; /* [from * ranks + to] */
};

struct op {
    int send, peer, kind;
    unsigned char *mem;
    size_t total, done;
    int begun; /* empty operations pass an empty box too */
};

/* The operations of one group. */
struct work {
    struct op op[MOST_OPS];
    int count;
    unsigned char *temp; /* parts of all ranks of a sum */
    void *sum;
    size_t sum_count;
    int sum_type;
    struct work *next;
};

struct ncclComm {
    struct shared *shared;
    size_t size;
    char name[64];
    int ranks, rank, blocking, joined, async, polls;
    struct work *asked, *taken, **last; /* asked: not yet on the stream */
    struct emu_stream_st *stream;
};
typedef struct ncclComm *comm_t;
struct id {
    char bytes[128];
};
struct config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

static _Thread_local int depth;
static _Thread_local struct work *group;
static _Thread_local comm_t group_comm;
static _Thread_local struct emu_stream_st *group_stream;
static _Thread_local int group_result;
static atomic_int serial, communicators;
static atomic_llong bytes_sent;

static int faulty(const char *fault, int rank)
{
    const char *set = getenv("AP_FAKE_NCCL");
    size_t n = strlen(fault);
    return set && strncmp(set, fault, n) == 0 && set[n] == '@' && strtol(set + n + 1, NULL, 10) == rank;
}

static size_t width(int type)
{
    return type == F64 ? 8 : type == F32 ? 4 : type == BF16 ? 2 : 1;
}

int ncclGetVersion(int *version)
{
    const char *set = getenv("AP_FAKE_NCCL_VERSION");
    *version = set ? (int)strtol(set, NULL, 10) : 22809;
    return SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    switch (result) {
    case SUCCESS:
        return "no error";
    case SYSTEM_ERROR:
        return "unhandled system error";
    case INVALID_ARGUMENT:
        return "invalid argument";
    case INVALID_USAGE:
        return "invalid usage";
    case REMOTE_ERROR:
        return "remote process exited or there was a network error";
    case IN_PROGRESS:
        return "NCCL operation in progress";
    default:
        return "unknown result code";
    }
}

int ncclGetUniqueId(struct id *id)
{
    memset(id, 0, sizeof(*id));
    snprintf(id->bytes, sizeof(id->bytes), "/ap-fake-nccl-%ld-%d", (long)getpid(), atomic_fetch_add(&serial, 1));
    return SUCCESS;
}

#ifndef FAKE_NCCL_OLD
static int attach(comm_t c)
{
    c->size = sizeof(struct shared) + (size_t)c->ranks * (size_t)c->ranks * sizeof(struct box);
    int fd = shm_open(c->name, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return SYSTEM_ERROR;
    void *mem = MAP_FAILED;
    if (ftruncate(fd, (off_t)c->size) == 0)
        mem = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mem == MAP_FAILED)
        return SYSTEM_ERROR;
    c->shared = mem;
    atomic_fetch_add(&c->shared->joined, 1);
    return SUCCESS;
}

int ncclCommInitRankConfig(comm_t *comm, int ranks, struct id id, int rank, struct config *config)
{
    if (ranks < 1 || rank < 0 || rank >= ranks || !config || config->magic != 0xcafebeefu || config->version < 21400 ||
        config->size < sizeof(*config) || config->blocking != 0)
        return INVALID_ARGUMENT;
    if (faulty("init_error", rank))
        return SYSTEM_ERROR;
    comm_t c = calloc(1, sizeof(*c));
    if (!c)
        return SYSTEM_ERROR;
    c->ranks = ranks;
    c->rank = rank;
    c->last = &c->taken;
    snprintf(c->name, sizeof(c->name), "%.60s", id.bytes);
    atomic_fetch_add(&communicators, 1);
    if (!faulty("init_hang", rank) && attach(c) != SUCCESS) {
        free(c);
        return SYSTEM_ERROR;
    }
    *comm = c;
    return IN_PROGRESS;
}
#endif

static void fold(void *to, const void *from, size_t n, int type)
{
    for (size_t i = 0; i < n; i++) {
        if (type == F64)
            ((double *)to)[i] += ((const double *)from)[i];
        else if (type == F32)
            ((float *)to)[i] += ((const float *)from)[i];
    }
}

static void finish(comm_t c, struct work *w)
{
    if (w->sum) {
        size_t bytes = w->sum_count * width(w->sum_type);
        memcpy(w->sum, w->temp, bytes);
        for (int r = 1; r < c->ranks; r++)
            fold(w->sum, w->temp + (size_t)r * bytes, w->sum_count, w->sum_type);
    }
    free(w->temp);
    free(w);
}

/* One step of one operation; 1: it has come to its end. */
static int step(comm_t c, struct op *o)
{
    int from = o->send ? c->rank : o->peer, to = o->send ? o->peer : c->rank;
    struct box *b = &c->shared->box[from * c->ranks + to];
    if (atomic_load(&b->full) == o->send)
        return 0;
    if (o->send) {
        size_t n = o->total - o->done < CHUNK ? o->total - o->done : CHUNK;
        b->kind = o->kind;
        b->total = o->total;
        b->bytes = (uint32_t)n;
        memcpy(b->data, o->mem + o->done, n);
        atomic_fetch_add(&bytes_sent, (long long)n);
        o->done += n;
    } else {
        if (b->total != o->total || b->kind != o->kind) {
            c->async = INVALID_USAGE;
            return 0;
        }
        memcpy(o->mem + o->done, b->data, b->bytes);
        o->done += b->bytes;
    }
    o->begun = 1;
    atomic_store(&b->full, o->send);
    return o->done == o->total;
}

/* Of operations with one peer in one direction, the first that is not over advances. */
static int blocked(const struct work *w, int i)
{
    for (int k = 0; k < i; k++) {
        const struct op *a = &w->op[k], *b = &w->op[i];
        if (a->send == b->send && a->peer == b->peer && !(a->begun && a->done == a->total))
            return 1;
    }
    return 0;
}

/* What a stream asks: is there work left? */
static int busy(void *arg)
{
    comm_t c = arg;
    struct work *w = c->taken;
    if (!w || c->async || faulty("stall", c->rank))
        return w != NULL;
    int open = 0;
    for (int i = 0; i < w->count; i++) {
        struct op *o = &w->op[i];
        if (o->begun && o->done == o->total)
            continue;
        if (blocked(w, i) || !step(c, o))
            open = 1;
    }
    if (open)
        return 1;
    c->stream->completed++;
    c->taken = w->next;
    if (!c->taken)
        c->last = &c->taken;
    finish(c, w);
    return c->taken != NULL;
}

int ncclCommGetAsyncError(comm_t c, int *result)
{
    *result = c->async;
    if (c->async)
        return SUCCESS;
    *result = IN_PROGRESS;
    if (!c->shared)
        return SUCCESS;
    if (!c->joined) {
        c->joined = atomic_load(&c->shared->joined) == c->ranks;
        if (c->joined)
            (void)shm_unlink(c->name);
        return SUCCESS;
    }
    if (c->asked && c->polls-- > 0)
        return SUCCESS;
    if (c->asked) {
        *c->last = c->asked;
        c->last = &c->asked->next;
        c->asked = NULL;
        c->stream->submitted++;
        c->stream->busy = busy;
        c->stream->work = c;
    }
    if (c->taken)
        (void)busy(c);
    *result = c->async ? c->async : SUCCESS;
    return SUCCESS;
}

static void drop(struct work *w)
{
    while (w) {
        struct work *next = w->next;
        free(w->temp);
        free(w);
        w = next;
    }
}

int ncclCommAbort(comm_t c)
{
    const char *log = getenv("AP_FAKE_NCCL_LOG");
    drop(c->asked);
    drop(c->taken);
    if (c->stream && c->stream->work == c) {
        c->stream->busy = NULL;
        c->stream->work = NULL;
        c->stream->completed = c->stream->submitted;
    }
    if (c->shared) {
        munmap(c->shared, c->size);
        if (!c->joined)
            (void)shm_unlink(c->name);
    }
    free(c);
    if (atomic_fetch_sub(&communicators, 1) == 1 && log) {
        FILE *f = fopen(log, "a");
        if (f) {
            fprintf(f, "%lld\n", (long long)atomic_load(&bytes_sent));
            fclose(f);
        }
    }
    return SUCCESS;
}

int ncclGroupStart(void)
{
    if (depth++ == 0) {
        group = NULL;
        group_comm = NULL;
        group_result = SUCCESS;
    }
    return SUCCESS;
}

static int submit(void)
{
    comm_t c = group_comm;
    if (group_result != SUCCESS || !c) {
        drop(group);
        group = NULL;
        return group_result;
    }
    /* Streams of the tests carry the work of one communicator at a time, and calls wait for those before. */
    struct emu_stream_st *s = group_stream;
    if (!c->joined || c->asked || (s->work && s->work != c && s->busy(s->work))) {
        drop(group);
        group = NULL;
        return INVALID_USAGE;
    }
    c->asked = group;
    group = NULL;
    c->stream = s;
    c->polls = POLLS;
    if (faulty("async", c->rank))
        c->async = REMOTE_ERROR;
    return IN_PROGRESS;
}

int ncclGroupEnd(void)
{
    return --depth == 0 ? submit() : SUCCESS;
}

/* The work of the open group; NULL: the group is spoilt. */
static struct work *open_work(comm_t c, void *stream, int ops)
{
    if (group_result == SUCCESS && !group) {
        group = calloc(1, sizeof(*group));
        group_comm = c;
        group_stream = stream;
    }
    if (!group || group_comm != c || group_stream != stream || group->count + ops > MOST_OPS) {
        group_result = INVALID_USAGE;
        return NULL;
    }
    return group;
}

static void add(struct work *w, int kind, int send, int peer, const void *mem, size_t bytes)
{
    w->op[w->count++] =
        (struct op){.send = send, .peer = peer, .kind = kind, .mem = (unsigned char *)(uintptr_t)mem, .total = bytes};
}

enum { P2P, GATHER, BROADCAST, SUM = 1000 };

int ncclSend(const void *send, size_t count, int type, int peer, comm_t c, void *stream)
{
    ncclGroupStart();
    struct work *w = open_work(c, stream, 1);
    if (w)
        add(w, P2P, 1, peer, send, count * width(type));
    return ncclGroupEnd();
}

int ncclRecv(void *recv, size_t count, int type, int peer, comm_t c, void *stream)
{
    ncclGroupStart();
    struct work *w = open_work(c, stream, 1);
    if (w)
        add(w, P2P, 0, peer, recv, count * width(type));
    return ncclGroupEnd();
}

int ncclBroadcast(const void *send, void *recv, size_t count, int type, int root, comm_t c, void *stream)
{
    ncclGroupStart();
    struct work *w = open_work(c, stream, c->ranks);
    size_t bytes = count * width(type);
    for (int r = 0; w && r < c->ranks && c->rank == root; r++)
        if (r != root)
            add(w, BROADCAST + root, 1, r, send, bytes);
    if (w && c->rank != root)
        add(w, BROADCAST + root, 0, root, recv, bytes);
    else if (w && send != recv)
        memmove(recv, send, bytes);
    return ncclGroupEnd();
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, comm_t c, void *stream)
{
    ncclGroupStart();
    struct work *w = open_work(c, stream, 2 * c->ranks);
    size_t bytes = count * width(type);
    for (int r = 0; w && r < c->ranks; r++) {
        add(w, GATHER, 1, r, send, bytes);
        add(w, GATHER, 0, r, (unsigned char *)recv + (size_t)r * bytes, bytes);
    }
    return ncclGroupEnd();
}

/* Everybody's part for everybody, added up in rank order. stride: bytes from the part of one rank to the next. */
static int sum(const void *send, size_t stride, void *recv, size_t count, int type, comm_t c, void *stream)
{
    ncclGroupStart();
    struct work *w = type == F32 || type == F64 ? open_work(c, stream, 2 * c->ranks) : NULL;
    size_t bytes = count * width(type);
    if (!w || w->sum || !(w->temp = malloc((size_t)c->ranks * bytes + 1)))
        group_result = INVALID_USAGE;
    for (int r = 0; group_result == SUCCESS && r < c->ranks; r++) {
        add(w, SUM, 1, r, (const unsigned char *)send + (size_t)r * stride, bytes);
        add(w, SUM, 0, r, w->temp + (size_t)r * bytes, bytes);
    }
    if (group_result == SUCCESS) {
        w->sum = recv;
        w->sum_count = count;
        w->sum_type = type;
    }
    return ncclGroupEnd();
}

int ncclAllReduce(const void *send, void *recv, size_t count, int type, int op, comm_t c, void *stream)
{
    return op != 0 ? INVALID_ARGUMENT : sum(send, 0, recv, count, type, c, stream);
}

int ncclReduceScatter(const void *send, void *recv, size_t count, int type, int op, comm_t c, void *stream)
{
    return op != 0 ? INVALID_ARGUMENT : sum(send, count * width(type), recv, count, type, c, stream);
}
