/* SPDX-License-Identifier: Apache-2.0
 * The scheduler of the CUDA emulator: fibres, warps, barriers, shared memory, and the comparison of two orders. */
#include "emu.h"

#include <setjmp.h>
#include <ucontext.h>

#include <map>
#include <string>
#include <vector>

#include "emu_state.h"

#define MAX_THREADS   1024
#define STACK_BYTES   65536
#define STATIC_SHARED 49152
#define POISON        0xff /* NaN as float and bf16 */
#define GUARD         64

uint3 emu_thread_idx, emu_block_idx;
dim3 emu_block_dim, emu_grid_dim;

namespace
{

enum state { READY, AT_WARP, AT_BLOCK, DONE };

struct copy {
    void *dst;
    const void *src;
    int size, valid;
    long group;
};

struct fibre {
    ucontext_t context;
    jmp_buf jump;
    char *stack;
    bool entered;
    state st;
    uint3 tid;
    int warp, lane;
    emu_op op;
    unsigned mask;
    size_t shared_used;
    std::vector<copy> copies;
    long group;
};

struct warp {
    unsigned phase;
    unsigned char slots[2][32][EMU_SLOT];
};

struct machine {
    std::vector<fibre *> fibres;
    std::vector<warp> warps;
    fibre *now;
    jmp_buf main_jump;
    const std::function<void()> *body;
    const char *kernel;
    int threads, barrier_sum, barrier_result;
    bool reverse;
    alignas(64) unsigned char shared[STATIC_SHARED];
    unsigned char *dynamic;
    size_t dynamic_size;
};

machine M;

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "emu: kernel %s, block %u %u %u, thread %u %u %u: %s\n", M.kernel ? M.kernel : "none",
            emu_block_idx.x, emu_block_idx.y, emu_block_idx.z, emu_thread_idx.x, emu_thread_idx.y, emu_thread_idx.z,
            what);
    exit(70);
}

void to_main(fibre *f)
{
    if (!_setjmp(f->jump))
        _longjmp(M.main_jump, 1);
}

/* A fibre serves one thread after another; it is never left. */
void fibre_main(void)
{
    fibre *f = M.now;
    for (;;) {
        (*M.body)();
        f->st = DONE;
        to_main(f);
    }
}

fibre *fibre_make(void)
{
    fibre *f = new fibre();
    f->stack = static_cast<char *>(malloc(STACK_BYTES));
    if (!f->stack)
        fail("out of memory for a fibre");
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, fibre_main, 0);
    return f;
}

void resume(fibre *f)
{
    M.now = f;
    emu_thread_idx = f->tid;
    if (!_setjmp(M.main_jump)) {
        if (f->entered)
            _longjmp(f->jump, 1);
        f->entered = true;
        setcontext(&f->context);
    }
}

/* Let the lanes of warp w run until all are at the block barrier or done. */
void run_warp(int w)
{
    int first = w * 32, count = M.threads - first < 32 ? M.threads - first : 32;
    for (;;) {
        for (int i = 0; i < count; i++) {
            fibre *f = M.fibres[(size_t)(first + (M.reverse ? count - 1 - i : i))];
            if (f->st == READY)
                resume(f);
        }
        unsigned live = 0, at_warp = 0;
        fibre *one = NULL;
        for (int i = 0; i < count; i++) {
            fibre *f = M.fibres[(size_t)(first + i)];
            live |= (unsigned)(f->st != DONE) << i;
            at_warp |= (unsigned)(f->st == AT_WARP) << i;
            one = f->st == AT_WARP ? f : one;
        }
        if (!at_warp)
            return;
        if (at_warp != live)
            fail("a warp-wide operation that other lanes of the warp do not reach");
        for (int i = 0; i < count; i++) {
            fibre *f = M.fibres[(size_t)(first + i)];
            if (f->st == AT_WARP && (f->op != one->op || f->mask != one->mask))
                fail("lanes of one warp are at different operations");
        }
        if (one->mask != live)
            fail("the mask of a warp-wide operation is not the set of live lanes");
        M.warps[(size_t)w].phase++;
        for (int i = 0; i < count; i++)
            M.fibres[(size_t)(first + i)]->st =
                M.fibres[(size_t)(first + i)]->st == AT_WARP ? READY : M.fibres[(size_t)(first + i)]->st;
    }
}

void start_block(void)
{
    for (int i = 0; i < M.threads; i++) {
        fibre *f = M.fibres[(size_t)i];
        f->st = READY;
        f->tid = {(unsigned)i % emu_block_dim.x, (unsigned)i / emu_block_dim.x % emu_block_dim.y,
                  (unsigned)i / (emu_block_dim.x * emu_block_dim.y)};
        f->warp = i / 32;
        f->lane = i % 32;
        f->shared_used = 0;
        f->copies.clear();
        f->group = 0;
    }
    M.barrier_sum = 0;
    memset(M.dynamic, POISON, M.dynamic_size);
    memset(M.dynamic + M.dynamic_size, 0xa5, GUARD);
}

void run_block(void)
{
    int warps = (M.threads + 31) / 32;
    size_t used = 0;
    start_block();
    for (;;) {
        int waiting = 0;
        for (int w = 0; w < warps; w++)
            run_warp(M.reverse ? warps - 1 - w : w);
        for (int i = 0; i < M.threads; i++) {
            fibre *f = M.fibres[(size_t)i];
            waiting += f->st == AT_BLOCK;
            f->st = f->st == AT_BLOCK ? READY : f->st;
            used = f->shared_used > used ? f->shared_used : used;
        }
        if (!waiting)
            break;
        M.barrier_result = M.barrier_sum;
        M.barrier_sum = 0;
    }
    memset(M.shared, POISON, used);
    for (int i = 0; i < GUARD; i++) {
        if (M.dynamic[M.dynamic_size + (size_t)i] != 0xa5)
            fail("dynamic shared memory was written beyond its end");
    }
}

void run_grid(bool reverse)
{
    uint64_t blocks = (uint64_t)emu_grid_dim.x * emu_grid_dim.y * emu_grid_dim.z;
    M.reverse = reverse;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t b = reverse ? blocks - 1 - i : i;
        emu_block_idx = {(unsigned)(b % emu_grid_dim.x), (unsigned)(b / emu_grid_dim.x % emu_grid_dim.y),
                         (unsigned)(b / emu_grid_dim.x / emu_grid_dim.y)};
        run_block();
    }
}

typedef std::map<char *, std::vector<char>> snapshot;

void take(snapshot *s)
{
    for (const auto &a : emu_allocations())
        (*s)[a.first].assign(a.first, a.first + a.second);
}

/* Run in both orders from the same memory; every byte of device memory must come out equal. */
void run_both(void)
{
    snapshot before, forward;
    take(&before);
    run_grid(false);
    take(&forward);
    for (const auto &a : before)
        memcpy(a.first, a.second.data(), a.second.size());
    run_grid(true);
    for (const auto &a : forward) {
        if (memcmp(a.first, a.second.data(), a.second.size()) != 0)
            fail("the result depends on the order of threads and blocks");
    }
}

} // namespace

void *emu_shared(size_t size)
{
    size_t at = (M.now->shared_used + 15) / 16 * 16;
    M.now->shared_used = at + size;
    if (M.now->shared_used > STATIC_SHARED)
        fail("more than 48 KiB of static shared memory");
    return M.shared + at;
}

void *emu_shared_dynamic(void)
{
    return M.dynamic;
}

const unsigned char (*emu_exchange(enum emu_op op, unsigned mask, const void *mine, size_t size))[EMU_SLOT]
{
    fibre *f = M.now;
    warp *w = &M.warps[(size_t)f->warp];
    unsigned phase = w->phase & 1u;
    memcpy(w->slots[phase][f->lane], mine, size);
    f->op = op;
    f->mask = mask;
    f->st = AT_WARP;
    to_main(f);
    return w->slots[phase];
}

int emu_syncthreads_count(int predicate)
{
    fibre *f = M.now;
    M.barrier_sum += predicate;
    f->st = AT_BLOCK;
    to_main(f);
    return M.barrier_result;
}

void emu_syncthreads(void)
{
    (void)emu_syncthreads_count(0);
}

void emu_cp_async(void *shared, const void *global, int size, int valid)
{
    if ((uintptr_t)shared % (unsigned)size || (uintptr_t)global % (unsigned)size)
        fail("asynchronous copy from or to an unaligned address");
    memset(shared, POISON, (size_t)size);
    M.now->copies.push_back({shared, global, size, valid, M.now->group});
}

void emu_cp_commit(void)
{
    M.now->group++;
}

void emu_cp_wait(int keep)
{
    std::vector<copy> rest;
    for (const copy &c : M.now->copies) {
        if (c.group >= M.now->group - keep) {
            rest.push_back(c);
            continue;
        }
        memset(c.dst, 0, (size_t)c.size);
        memcpy(c.dst, c.src, (size_t)c.valid);
    }
    M.now->copies.swap(rest);
}

static float half_of(unsigned reg, int high)
{
    return __uint_as_float(high ? reg & 0xffff0000u : reg << 16);
}

/* Layouts of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"). */
void emu_mma_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
    struct {
        unsigned a[4], b[2];
    } mine;
    memcpy(mine.a, a, sizeof(mine.a));
    memcpy(mine.b, b, sizeof(mine.b));
    const unsigned char(*slot)[EMU_SLOT] = emu_exchange(EMU_OP_MMA, 0xffffffffu, &mine, sizeof(mine));
    int lane = emu_lane(), row = lane >> 2, col = (lane & 3) * 2;
    for (int k = 0; k < 16; k++) {
        unsigned low, high, b0, b1;
        int pair = (k & 7) >> 1, upper = k >> 3;
        memcpy(&low, slot[row * 4 + pair] + 4 * (2 * upper), 4);
        memcpy(&high, slot[row * 4 + pair] + 4 * (2 * upper + 1), 4);
        memcpy(&b0, slot[col * 4 + pair] + 16 + 4 * upper, 4);
        memcpy(&b1, slot[(col + 1) * 4 + pair] + 16 + 4 * upper, 4);
        float x0 = half_of(low, k & 1), x1 = half_of(high, k & 1), y0 = half_of(b0, k & 1), y1 = half_of(b1, k & 1);
        d[0] += x0 * y0;
        d[1] += x0 * y1;
        d[2] += x1 * y0;
        d[3] += x1 * y1;
    }
}

/* Lane i gives the address of row i % 8 of matrix i / 8; every row is 8 elements of 16 bits. */
void emu_ldmatrix(unsigned *out, int count, int trans, const void *row)
{
    if ((uintptr_t)row % 16)
        fail("ldmatrix from an unaligned row");
    const unsigned char(*slot)[EMU_SLOT] = emu_exchange(EMU_OP_LDMATRIX, 0xffffffffu, &row, sizeof(row));
    int lane = emu_lane(), group = lane >> 2, pair = (lane & 3) * 2;
    for (int j = 0; j < count; j++) {
        uint16_t low, high;
        const unsigned char *r0, *r1;
        memcpy(&r0, slot[8 * j + (trans ? pair : group)], sizeof(r0));
        memcpy(&r1, slot[8 * j + (trans ? pair + 1 : group)], sizeof(r1));
        memcpy(&low, r0 + 2 * (trans ? group : pair), 2);
        memcpy(&high, r1 + 2 * (trans ? group : pair + 1), 2);
        out[j] = (unsigned)low | (unsigned)high << 16;
    }
    /* The hardware reads all rows at once: nobody may write before everyone has read. */
    __syncwarp();
}

static void check_limits(dim3 grid, dim3 block, size_t smem, const void *kernel, cudaError_t *error)
{
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        *error = cudaErrorInvalidConfiguration;
    else if (smem > emu_dynamic_limit(kernel))
        *error = cudaErrorInvalidValue;
}

void emu_launch(const void *kernel, const char *name, dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                const std::function<void()> &body)
{
    cudaError_t error = emu_stream_ok(stream);
    check_limits(grid, block, smem, kernel, &error);
    if (error != cudaSuccess || !emu_count_launch()) {
        emu_set_error(error);
        return;
    }
    M.kernel = name;
    M.body = &body;
    M.threads = (int)(block.x * block.y * block.z);
    emu_grid_dim = grid;
    emu_block_dim = block;
    while ((int)M.fibres.size() < M.threads)
        M.fibres.push_back(fibre_make());
    M.warps.resize((size_t)(M.threads + 31) / 32);
    M.dynamic_size = smem;
    M.dynamic = static_cast<unsigned char *>(aligned_alloc(64, (smem + GUARD + 63) / 64 * 64));
    if (!M.dynamic)
        fail("out of memory for shared memory");
    memset(M.shared, POISON, sizeof(M.shared));
    if (emu_order() == EMU_BOTH)
        run_both();
    else
        run_grid(emu_order() == EMU_REVERSE);
    free(M.dynamic);
    M.dynamic = NULL;
    emu_check_guards(name);
    M.kernel = NULL;
}
