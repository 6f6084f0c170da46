/* SPDX-License-Identifier: Apache-2.0
 * sum_tokens and sumsq: the tree of src/backend/cpu/pairwise.h in f64, so that every backend gives the same
 * bits. Leaves are blocks of 512 elements summed by 8 lanes; the leaves are joined by halving their range,
 * the left part being the larger. The tree depends on the length only. */
#include "config.h"

#include "backend/cuda/cu_backend.h"
extern "C" {
#include "backend/cpu/pairwise.h"
}

#define THREADS       256
#define SHORT_THREADS 512
#define LANES         8
#define TOP           256 /* nodes of the tree at depth TOP_LEVELS */
#define TOP_LEVELS    8
#define MAX_DEEP      48
#define RUNS          128 /* runs that travel as kernel arguments */

/* Sum of leaf `leaf` of x by 8 neighbouring lanes: lane j adds the elements j, j+8, ... in order; lanes join as
 * ap_pairwise_join8 does. 0 beyond the end. All lanes of the warp call it. */
template <typename T> static __device__ __forceinline__ double leaf_sum(const T *x, int64_t n, int64_t leaf, int square)
{
    int lane = (int)threadIdx.x % LANES;
    int64_t first = leaf * AP_PAIRWISE_BLOCK, last = first + AP_PAIRWISE_BLOCK < n ? first + AP_PAIRWISE_BLOCK : n;
    double sum = 0.0;
    for (int64_t i = first + lane; i < last; i += LANES) {
        double v = (double)to_float(x[i]);
        sum += square ? v * v : v; /* exact: the square of a float fits a double */
    }
#pragma unroll
    for (int step = 1; step < LANES; step *= 2)
        sum += __shfl_xor_sync(AP_FULL, sum, step);
    return sum;
}

template <typename T>
static __global__ void leaves_kernel(const T *x, int64_t n, int64_t leaves, int square, double *out)
{
    int64_t leaf = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    double sum = leaf_sum(x, n, leaf, square);
    if (threadIdx.x % LANES == 0 && leaf < leaves)
        out[leaf] = sum;
}

/* The range of leaves of node `path` at depth `depth`: bits of path from the top, 1 = right. */
static __device__ void node_range(int64_t leaves, int depth, unsigned path, int64_t *first_p, int64_t *count_p)
{
    int64_t first = 0, count = leaves;
    for (int d = depth - 1; d >= 0; d--) {
        int64_t left = (count + 1) / 2;
        if (count <= 1) /* a leaf has no halves: it stands on the left */
            left = path >> d & 1u ? 1 : count;
        if (path >> d & 1u) {
            first += left;
            count -= left;
        } else {
            count = left;
        }
    }
    *first_p = first;
    *count_p = count < 0 ? 0 : count;
}

/* Sum of a subtree by one thread, without recursion: a stack of sums that wait for their right half. */
static __device__ double subtree(const double *x, int64_t first, int64_t count)
{
    struct {
        int64_t first, count;
        double left;
        int done;
    } stack[MAX_DEEP];
    int top = 0;
    double value = 0.0;
    stack[0].first = first;
    stack[0].count = count;
    stack[0].done = 0;
    while (top >= 0) {
        int64_t n = stack[top].count, left = (n + 1) / 2;
        if (n <= 1) {
            value = n == 1 ? x[stack[top].first] : 0.0;
            top--;
        } else if (stack[top].done == 0) {
            stack[top].done = 1;
            stack[top + 1].first = stack[top].first;
            stack[top + 1].count = left;
            stack[top + 1].done = 0;
            top++;
            continue;
        } else if (stack[top].done == 1) {
            stack[top].done = 2;
            stack[top].left = value;
            stack[top + 1].first = stack[top].first + left;
            stack[top + 1].count = n - left;
            stack[top + 1].done = 0;
            top++;
            continue;
        } else {
            value = stack[top].left + value;
            top--;
        }
    }
    return value;
}

struct join_space {
    double value[TOP];
    int64_t count[TOP];
};

/* The last 8 levels in shared memory, where every node of depth 8 left its sum and its number of leaves; all threads
 * of the block call it. The root for thread 0. */
static __device__ __forceinline__ double join_top(join_space &sh)
{
    int t = (int)threadIdx.x;
    for (int width = TOP / 2; width >= 1; width /= 2) {
        double left = 0.0, right = 0.0;
        int64_t has = 0, has_right = 0;
        __syncthreads();
        if (t < width) {
            left = sh.value[2 * t];
            right = sh.value[2 * t + 1];
            has_right = sh.count[2 * t + 1];
            has = sh.count[2 * t] + has_right;
        }
        __syncthreads();
        if (t < width) {
            sh.value[t] = has_right ? left + right : left;
            sh.count[t] = has;
        }
    }
    return t == 0 ? sh.value[0] : 0.0;
}

/* One block of TOP threads: a subtree each, then the last levels. out (= or +=) the root. */
static __global__ void join_kernel(const double *leaf, int64_t leaves, double *out, int accumulate)
{
    AP_SHARED(join_space, sh);
    int t = (int)threadIdx.x;
    int64_t first, count;
    node_range(leaves, TOP_LEVELS, (unsigned)t, &first, &count);
    sh.value[t] = subtree(leaf, first, count);
    sh.count[t] = count;
    double sum = join_top(sh);
    if (t == 0)
        *out = accumulate ? *out + sum : sum;
}

/* Up to TOP leaves by one block. */
template <typename T>
static __device__ __forceinline__ void short_sum(const T *x, int64_t n, int64_t leaves, int square, double *out,
                                                 int accumulate)
{
    struct space {
        double leaf[TOP];
        join_space join;
    };
    AP_SHARED(space, sh);
    int t = (int)threadIdx.x;
    int64_t first, count;
    for (int leaf = t / LANES; leaf < TOP; leaf += SHORT_THREADS / LANES) {
        double sum = leaf_sum(x, n, leaf, square);
        if (t % LANES == 0)
            sh.leaf[leaf] = sum;
    }
    __syncthreads();
    if (t < TOP) {
        node_range(leaves, TOP_LEVELS, (unsigned)t, &first, &count);
        sh.join.value[t] = count > 0 ? sh.leaf[first] : 0.0;
        sh.join.count[t] = count;
    }
    double sum = join_top(sh.join);
    if (t == 0)
        *out = accumulate ? *out + sum : sum;
}

template <typename T>
static __global__ void short_kernel(const T *x, int64_t n, int64_t leaves, int square, double *out, int accumulate)
{
    short_sum(x, n, leaves, square, out, accumulate);
}

template <typename T>
static ap_status reduce(struct cu_stream *s, const T *x, int64_t n, double *out, int square, int accumulate)
{
    int64_t leaves = ceil_div(n, AP_PAIRWISE_BLOCK);
    void *mem;
    if (leaves <= TOP) {
        AP_LAUNCH((short_kernel<T>), dim3(1), SHORT_THREADS, 0, s->id, x, n, leaves, square, out, accumulate);
        return cu_launched("sum");
    }
    AP_TRY(cu_scratch(s, (size_t)(leaves + 1) * sizeof(double), &mem));
    AP_LAUNCH((leaves_kernel<T>), dim3((unsigned)ceil_div(leaves * LANES, THREADS)), THREADS, 0, s->id, x, n, leaves,
              square, (double *)mem);
    AP_LAUNCH(join_kernel, dim3(1), TOP, 0, s->id, (const double *)mem, leaves, out, accumulate);
    return cu_launched("sum");
}

ap_status cu_sum_tokens(struct cu_stream *s, const struct ap_sum_tokens_args *a)
{
    if (a->x.dtype != AP_F32)
        return AP_ERR_UNSUPPORTED;
    return reduce(s, (const float *)a->x.data, ap_tensor_count(&a->x), (double *)a->out.data, 0, 1);
}

/* Short runs, one block each. */
struct run_list {
    int64_t begin[RUNS], count[RUNS], out[RUNS];
    int used;
};

template <typename T> static __global__ void runs_kernel(const T *x, double *out, run_list list)
{
    int i = (int)blockIdx.x;
    int64_t n = list.count[i];
    short_sum(x + list.begin[i], n, (n + AP_PAIRWISE_BLOCK - 1) / AP_PAIRWISE_BLOCK, 1, out + list.out[i], 0);
}

template <typename T> static ap_status square_sums(struct cu_stream *s, const struct ap_sumsq_args *a)
{
    const T *x = (const T *)a->x.data;
    double *out = (double *)a->out.data;
    if (!a->runs)
        return reduce(s, x, ap_tensor_count(&a->x), out, 1, 0);
    for (int64_t at = 0; at < a->run_count;) {
        run_list list = {};
        for (; at < a->run_count && list.used < RUNS; at++) {
            const struct ap_run *run = &a->runs[at];
            if (ceil_div(run->count, AP_PAIRWISE_BLOCK) > TOP) {
                AP_TRY(reduce(s, x + run->begin, run->count, out + at, 1, 0));
                continue;
            }
            list.begin[list.used] = run->begin;
            list.count[list.used] = run->count;
            list.out[list.used++] = at;
        }
        if (list.used > 0)
            AP_LAUNCH((runs_kernel<T>), dim3((unsigned)list.used), SHORT_THREADS, 0, s->id, x, out, list);
    }
    return cu_launched("sums of squares");
}

ap_status cu_sumsq(struct cu_stream *s, const struct ap_sumsq_args *a)
{
    if (a->x.dtype == AP_F32)
        return square_sums<float>(s, a);
    return a->x.dtype == AP_BF16 ? square_sums<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}
