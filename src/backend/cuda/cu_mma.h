/* SPDX-License-Identifier: Apache-2.0
 * The instructions of tensor-core kernels behind plain functions: mma m16n8k16 on bf16, ldmatrix, and
 * asynchronous copies to shared memory (all sm_80 and up). The emulator has its own versions.
 *
 * Fragments of one warp, lane = 4 g + t:
 *   A [16 x 16]: a[0] (row g, columns 2t 2t+1), a[1] (row g+8, same), a[2] (row g, columns 2t+8 2t+9), a[3] (row g+8)
 *   B [16 x 8]:  b[0] (rows 2t 2t+1, column g), b[1] (rows 2t+8 2t+9, column g)
 *   D [16 x 8]:  d[0] d[1] (row g, columns 2t 2t+1), d[2] d[3] (row g+8) */
#ifndef AP_BACKEND_CUDA_MMA_H
#define AP_BACKEND_CUDA_MMA_H

#include "backend/cuda/cu_platform.h"

/* d += a b. */
static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef AP_CUDA_EMU
    emu_mma_bf16(d, a, b);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* Four 8 x 8 matrices; lane i gives the address of row i % 8 of matrix i / 8 (16-byte aligned). */
static __device__ __forceinline__ void ldmatrix4(uint32_t r[4], const bf16 *row)
{
#ifdef AP_CUDA_EMU
    emu_ldmatrix(r, 4, 0, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
#endif
}

/* The same, each matrix transposed. */
static __device__ __forceinline__ void ldmatrix4_trans(uint32_t r[4], const bf16 *row)
{
#ifdef AP_CUDA_EMU
    emu_ldmatrix(r, 4, 1, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
#endif
}

/* Fragments from a tile in shared memory whose rows are `stride` elements apart. "stored as" says what a row
 * of the tile is. A: 16 x 16 at (row m, column k). B: two 16 x 8 fragments, columns n .. n+15, rows k .. k+15. */
static __device__ __forceinline__ void load_a(uint32_t a[4], const bf16 *tile, int stride, int m,
                                              int k) /* stored as [m][k] */
{
    int i = (int)threadIdx.x % AP_WARP;
    ldmatrix4(a, tile + (m + i % 8 + 8 * (i / 8 % 2)) * stride + k + 8 * (i / 16));
}
static __device__ __forceinline__ void load_a_trans(uint32_t a[4], const bf16 *tile, int stride, int m,
                                                    int k) /* stored as [k][m] */
{
    int i = (int)threadIdx.x % AP_WARP;
    ldmatrix4_trans(a, tile + (k + i % 8 + 8 * (i / 16)) * stride + m + 8 * (i / 8 % 2));
}
static __device__ __forceinline__ void load_b2(uint32_t b[2][2], const bf16 *tile, int stride, int n,
                                               int k) /* stored as [n][k] */
{
    int i = (int)threadIdx.x % AP_WARP;
    uint32_t r[4];
    ldmatrix4(r, tile + (n + i % 8 + 8 * (i / 16)) * stride + k + 8 * (i / 8 % 2));
    b[0][0] = r[0];
    b[0][1] = r[1];
    b[1][0] = r[2];
    b[1][1] = r[3];
}
static __device__ __forceinline__ void load_b2_trans(uint32_t b[2][2], const bf16 *tile, int stride, int n,
                                                     int k) /* stored as [k][n] */
{
    int i = (int)threadIdx.x % AP_WARP;
    uint32_t r[4];
    ldmatrix4_trans(r, tile + (k + i % 8 + 8 * (i / 8 % 2)) * stride + n + 8 * (i / 16));
    b[0][0] = r[0];
    b[0][1] = r[1];
    b[1][0] = r[2];
    b[1][1] = r[3];
}

/* 16 bytes from global to shared memory; with valid = 0 the destination becomes zero. In flight until cp_wait. */
static __device__ __forceinline__ void cp_async16(bf16 *shared, const bf16 *global, int valid)
{
#ifdef AP_CUDA_EMU
    emu_cp_async(shared, global, 16, valid);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(valid)
                 : "memory");
#endif
}
/* Close a group of copies; wait until at most `keep` younger groups of this thread are in flight. Other
 * threads' copies are seen after a barrier only. */
static __device__ __forceinline__ void cp_commit(void)
{
#ifdef AP_CUDA_EMU
    emu_cp_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int keep> static __device__ __forceinline__ void cp_wait(void)
{
#ifdef AP_CUDA_EMU
    emu_cp_wait(keep);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(keep) : "memory");
#endif
}

/* ROWS x COLS elements from global memory (rows ld apart) to shared memory (rows `stride` apart) by THREADS
 * threads; what lies beyond rows_left or cols_left becomes zero. vec: rows begin at 16-byte boundaries and
 * cols_left is a multiple of 8 or >= COLS: copies are asynchronous; otherwise they are plain. */
template <int ROWS, int COLS, int THREADS>
static __device__ __forceinline__ void load_tile(bf16 *shared, int stride, const bf16 *global, int64_t ld,
                                                 int64_t rows_left, int64_t cols_left, bool vec)
{
    constexpr int PACKS = COLS / 8;
#pragma unroll
    for (int c = (int)threadIdx.x; c < ROWS * PACKS; c += THREADS) {
        int row = c / PACKS, col = c % PACKS * 8;
        bf16 *out = shared + row * stride + col;
        const bf16 *in = global + row * ld + col;
        bool there = row < rows_left && col < cols_left;
        if (vec) {
            cp_async16(out, there ? in : global, there ? 16 : 0);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++)
                out[j] = there && col + j < cols_left ? in[j] : bf16{0};
        }
    }
}

#endif
