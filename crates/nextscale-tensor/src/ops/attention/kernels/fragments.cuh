// Products of fragments on the tensor cores, for rows of 64 half-precision elements.
//
// A tile in shared memory is 64 rows of 128 bytes. The 16-byte pieces of row r are kept at place (piece ^ r % 8), so that
// eight rows' pieces of one column lie in different banks; it is also the layout that Hopper's matrix unit calls a swizzle
// of 128 bytes. In a result fragment (16 rows, 8 columns) a thread has rows g and g + 8 and columns 2t and 2t + 1, with
// g = lane / 4 and t = lane % 4.
//
// On Hopper four warps multiply together, reading tiles from shared memory without the help of registers (wgmma); elsewhere
// each warp loads fragments and multiplies on its own (mma.sync). Warps that multiply together are a group.

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool TOGETHER = true;
#else
constexpr bool TOGETHER = false;
#endif

constexpr int WIDTH = 64;
constexpr int TILE = 64;
constexpr int TILE_BYTES = TILE * WIDTH * 2;
// Fragments of rows a warp has, rows of a warp and of a group.
constexpr int M = TOGETHER ? 1 : 2;
constexpr int WARP_ROWS = 16 * M;
constexpr int GROUP_WARPS = TOGETHER ? 4 : 1;
constexpr int GROUP_ROWS = GROUP_WARPS * WARP_ROWS;
// A block is one group where warps multiply together, else four: 128 threads. (On an H200, blocks of more groups were slower,
// though they share tiles, and even where groups don't wait for each other.)
constexpr int THREADS = 128;
constexpr int BLOCK_ROWS = THREADS / 32 * WARP_ROWS;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LEAST_NORM = 1e-12f;
constexpr float MOST_SCALE_MUL = 4.6051702f;
constexpr u32 ALL_LANES = 0xffffffffu;

__device__ __forceinline__ void load_fragments(u32 (&b)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(from)
                 : "memory");
}
__device__ __forceinline__ void load_transposed(u32 (&b)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(from)
                 : "memory");
}

// c += a * b for 16 rows, 8 columns and an inner dimension of 16.
template <typename T> __device__ __forceinline__ void product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <> __device__ __forceinline__ void product<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void product<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two halves in a word, `x` the lower.
template <typename T> __device__ __forceinline__ u32 pack(float x, float y);
template <> __device__ __forceinline__ u32 pack<bf16>(float x, float y) {
    u32 w;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(y), "f"(x));
    return w;
}
template <> __device__ __forceinline__ u32 pack<f16>(float x, float y) {
    u32 w;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(y), "f"(x));
    return w;
}
template <typename T> __device__ __forceinline__ float lower(u32 w) { return to_f32(T{(u16)w}); }
template <typename T> __device__ __forceinline__ float upper(u32 w) { return to_f32(T{(u16)(w >> 16)}); }

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Over the four threads that share a fragment's rows.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// What a head's queries are multiplied by. A clamped element counts as ln 100; NaN stays NaN.
__device__ __forceinline__ float query_factor(const float* scale_mul, int head, bool unit, int dim) {
    if (!unit) return 0.25f * rsqrtf((float)dim);
    float s = scale_mul[head];
    return expf(s > MOST_SCALE_MUL ? MOST_SCALE_MUL : s);
}

// Where a thread's row pieces lie in a tile: for right operands whose inner dimension is the row's (`across`) or counts
// rows (`down`). Further 16 rows are 2048 bytes on; further 16 columns come by exclusive or with multiples of 32.
struct Places {
    u32 across, down;
    __device__ __forceinline__ explicit Places(int lane) {
        u32 i = lane >> 3, r = lane & 7;
        across = ((i >> 1) * 8 + r) * 128 + (((i & 1) ^ r) << 4);
        down = ((i & 1) * 8 + r) * 128 + (((i >> 1) ^ r) << 4);
    }
};

// Begins to copy a tile from rows `stride` elements apart, of which `rows` are there.
template <typename T> __device__ __forceinline__ void copy_tile(u32 tile, const T* x, u64 stride, int rows) {
    int c = threadIdx.x & 7;
#pragma unroll
    for (int i = 0; i < TILE * 8 / THREADS; i++) {
        int r = (threadIdx.x >> 3) + i * (THREADS / 8);
        bool there = r < rows;
        copy_16(tile + r * 128 + ((c ^ (r & 7)) << 4), x + (there ? r : 0) * stride + c * 8, there);
    }
}

// Two stages of two tiles each: while one is worked on the other is filled, on Hopper by the copy engine, which takes a map and
// the tile's first indices, else by all threads from rows in memory.
struct Stages {
    u32 tiles, full;
    // `tiles` begins at a multiple of 1024, `barriers` are two.
    __device__ __forceinline__ Stages(char* tiles, u64* barriers) : tiles(shared_address(tiles)), full(shared_address(barriers)) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        if (threadIdx.x == 0) {
            barrier_make(full, 1);
            barrier_make(full + 8, 1);
            barriers_made();
        }
        __syncthreads();
#endif
    }
    __device__ __forceinline__ u32 first(int stage) const { return tiles + stage * 2 * TILE_BYTES; }
    __device__ __forceinline__ u32 second(int stage) const { return first(stage) + TILE_BYTES; }

    // Begins to fill a stage with rows from `row` on.
    template <typename T>
    __device__ __forceinline__ void fill(int stage, int row, int rows, int sample, const TensorMap& a_map, int a_column, const T* a,
                                         u64 a_stride, const TensorMap& b_map, int b_column, const T* b, u64 b_stride) const {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        if (threadIdx.x == 0) {
            u32 barrier = full + stage * 8;
            barrier_expect(barrier, 2 * TILE_BYTES);
            copy_box(first(stage), a_map, a_column, row, sample, barrier);
            copy_box(second(stage), b_map, b_column, row, sample, barrier);
        }
#else
        copy_tile(first(stage), a + row * a_stride, a_stride, rows - row);
        copy_tile(second(stage), b + row * b_stride, b_stride, rows - row);
#endif
    }
    // Waits for the n-th filling (they take turns) and for this thread's other copies; the block's barrier must follow.
    __device__ __forceinline__ void arrive(int n) const {
        copies_wait<0>();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        barrier_wait(full + (n & 1) * 8, n >> 1 & 1);
#endif
    }
};

// A warp's rows as left operands, straight from memory; zeros where rows are not there.
template <typename T> __device__ __forceinline__ void load_rows(u32 (&a)[M][4][4], const T* x, u64 stride, int rows) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int r = i * 8 + g;
        const u32* p = (const u32*)(x + (r < rows ? r : 0) * stride) + t;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            a[i >> 1][k][i & 1] = r < rows ? p[k * 8] : 0;
            a[i >> 1][k][2 + (i & 1)] = r < rows ? p[k * 8 + 4] : 0;
        }
    }
}

// The same rows to memory.
template <typename T> __device__ __forceinline__ void write_rows(const u32 (&a)[M][4][4], T* x, u64 stride, int rows) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int r = i * 8 + g;
        u32* p = (u32*)(x + (r < rows ? r : 0) * stride) + t;
        if (r < rows)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                p[k * 8] = a[i >> 1][k][i & 1];
                p[k * 8 + 4] = a[i >> 1][k][2 + (i & 1)];
            }
    }
}

// Rows as left operand of products across: on Hopper a tile in shared memory, which leaves registers for more blocks, elsewhere
// registers.
struct Left {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    u32 tile;
#else
    u32 a[M][4][4];
#endif
    // `room` is the group's, a tile; `lefts_made` must follow.
    __device__ __forceinline__ Left(const u32 (&x)[M][4][4], char* room) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
        tile = shared_address(room);
        char* at = room + (threadIdx.x / 32 % 4 * WARP_ROWS + g) * 128 + t * 4;
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int e = 0; e < 4; e++) *(u32*)(at + (e & 1) * 1024 + (((2 * k + (e >> 1)) ^ g) << 4)) = x[0][k][e];
#else
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int e = 0; e < 4; e++) a[m][k][e] = x[m][k][e];
#endif
    }
};
// What was stored is there for products; the block's barrier must follow.
__device__ __forceinline__ void lefts_made() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    publish();
#endif
}

// Both halves of a word multiplied.
template <typename T> __device__ __forceinline__ u32 times(u32 w, float f) { return pack<T>(lower<T>(w) * f, upper<T>(w) * f); }

// Rows as left operands, each multiplied by its own number and by a common one.
template <typename T> __device__ __forceinline__ void scale_rows(u32 (&a)[M][4][4], const float (&r)[2 * M], float factor) {
#pragma unroll
    for (int i = 0; i < 2 * M; i++)
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                u32& w = a[i >> 1][k][2 * e + (i & 1)];
                // One after the other: their product may be too large where a row is zero.
                w = pack<T>(lower<T>(w) * r[i] * factor, upper<T>(w) * r[i] * factor);
            }
}

// 1 / max(norm, 1e-12) from the sum of squares; not a number where that is none or infinite.
__device__ __forceinline__ float inverse_norm(float squares) {
    return rsqrtf(fmaxf(squares, LEAST_NORM * LEAST_NORM)) + (squares - squares);
}
// Whether the norm was at the bound, so that the divisor was a constant.
__device__ __forceinline__ bool at_bound(float inverse) { return inverse > 0.999f / LEAST_NORM; }

template <typename T> __device__ __forceinline__ float squares(u32 w) {
    return lower<T>(w) * lower<T>(w) + upper<T>(w) * upper<T>(w);
}

// The reciprocal norm of every row of a left operand.
template <typename T> __device__ __forceinline__ void inverse_norms(float (&r)[2 * M], const u32 (&a)[M][4][4]) {
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < 4; k++) sum += squares<T>(a[i >> 1][k][i & 1]) + squares<T>(a[i >> 1][k][2 + (i & 1)]);
        r[i] = inverse_norm(quad_sum(sum));
    }
}

// Result fragments as the left operand of the next product.
template <typename T, int N> __device__ __forceinline__ void pack_rows(u32 (&a)[M][N / 16][4], const float (&c)[M][N / 8][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int k = 0; k < N / 16; k++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                a[m][k][e] = pack<T>(c[m][2 * k + (e >> 1)][2 * (e & 1)], c[m][2 * k + (e >> 1)][2 * (e & 1) + 1]);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Where a tile is, `skipped` units of 16 bytes on, for the matrix unit: swizzle of 128 bytes, eight rows every 1024.
__device__ __forceinline__ u64 described(u32 tile, u32 skipped) {
    u64 d;
    u32 low = ((tile & 0x3ffff) >> 4 | 1u << 16) + skipped, high = 64u | 1u << 30;
    asm("mov.b64 %0, {%1, %2};" : "=l"(d) : "r"(low), "r"(high));
    return d;
}

#define ACCUMULATORS_8(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3]), "+f"(c[n + 1][0]), "+f"(c[n + 1][1]), \
    "+f"(c[n + 1][2]), "+f"(c[n + 1][3])
// c (+)= a * b for the 64 rows of a group, an inner dimension of 16 and 64 columns: a and b from tiles, or a from registers and
// b's rows the inner dimension.
#define PRODUCTS_TOGETHER(TYPE, PTX)                                                                                        \
    __device__ __forceinline__ void product_across(TYPE, float (&c)[8][4], u64 a, u64 b, int add) {                         \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; "                                                              \
            "wgmma.mma_async.sync.aligned.m64n64k16.f32." PTX "." PTX                                                       \
            " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,"  \
            "%29,%30,%31}, %32, %33, p, 1, 1, 0, 0; }"                                                                      \
            : ACCUMULATORS_8(c, 0), ACCUMULATORS_8(c, 2), ACCUMULATORS_8(c, 4), ACCUMULATORS_8(c, 6)                        \
            : "l"(a), "l"(b), "r"(add));                                                                                    \
    }                                                                                                                       \
    __device__ __forceinline__ void product_down(TYPE, float (&c)[8][4], const u32 (&a)[4], u64 b) {                        \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." PTX "." PTX                                              \
            " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,"  \
            "%29,%30,%31}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"                                                             \
            : ACCUMULATORS_8(c, 0), ACCUMULATORS_8(c, 2), ACCUMULATORS_8(c, 4), ACCUMULATORS_8(c, 6)                        \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                          \
    }
PRODUCTS_TOGETHER(bf16, "bf16")
PRODUCTS_TOGETHER(f16, "f16")
#endif

// s = left * (rows part * N... of a tile, N of them) transposed. The result is there after `finish`.
template <typename T, int N>
__device__ __forceinline__ void multiply_across(float (&s)[M][N / 8][4], const Left& left, u32 tile, int part, Places at) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    u32 from = part * (N * 128 >> 4);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 4; k++) product_across(T{}, s[0], described(left.tile, k * 2), described(tile, from + k * 2), k > 0);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][n][e] = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            u32 f[4];
            load_fragments(f, tile + part * (N * 128) + n * 2048 + (at.across ^ (k << 5)));
#pragma unroll
            for (int m = 0; m < M; m++) {
                product<T>(s[m][2 * n], left.a[m][k], f[0], f[1]);
                product<T>(s[m][2 * n + 1], left.a[m][k], f[2], f[3]);
            }
        }
#endif
}

// o += p * (rows part * N... of a tile, N of them).
template <typename T, int N>
__device__ __forceinline__ void multiply_down(float (&o)[M][8][4], const u32 (&p)[M][N / 16][4], u32 tile, int part, Places at) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    u32 from = part * (N * 128 >> 4);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < N / 16; k++) product_down(T{}, o[0], p[0][k], described(tile, from + k * 128));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            u32 f[4];
            load_transposed(f, tile + part * (N * 128) + k * 2048 + (at.down ^ (n << 5)));
#pragma unroll
            for (int m = 0; m < M; m++) {
                product<T>(o[m][2 * n], p[m][k], f[0], f[1]);
                product<T>(o[m][2 * n + 1], p[m][k], f[2], f[3]);
            }
        }
#endif
}

// Waits until at most LATER of the products begun are not done; what was written is named, so that nothing reads it before.
template <int LATER, int N> __device__ __forceinline__ void finish(float (&c)[M][N][4]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LATER) : "memory");
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) asm volatile("" : "+f"(c[0][n][e])::"memory");
#endif
}

// Names a left operand that products read until they are done.
template <int K> __device__ __forceinline__ void keep(u32 (&a)[M][K][4]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int e = 0; e < 4; e++) asm volatile("" : "+r"(a[0][k][e])::"memory");
#endif
}

// Writes a warp's rows of results, of which `rows` are there, as halves, through shared memory that no other warp uses (128
// bytes a row), so that memory sees whole rows.
template <typename T>
__device__ __forceinline__ void store_rows(char* stage, const float (&c)[M][8][4], T* y, u64 stride, int rows) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2 * M; i++)
#pragma unroll
        for (int n = 0; n < 8; n++)
            *(u32*)(stage + (i * 8 + g) * 128 + ((n ^ g) << 4) + t * 4) =
                pack<T>(c[i >> 1][n][2 * (i & 1)], c[i >> 1][n][2 * (i & 1) + 1]);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4 * M; i++) {
        int r = i * 4 + (lane >> 3), piece = lane & 7;
        if (r < rows) *(uint4*)(y + r * stride + piece * 8) = *(const uint4*)(stage + r * 128 + ((piece ^ (r & 7)) << 4));
    }
}

// A warp's part of a block of rows of one head. Blocks are cut from the last row down, so that the long scales fall on whole
// blocks; the last block's first rows may not be there.
struct Rows {
    // The block's and the group's ends, the group's first row, this warp's first row and how many of its rows are there.
    int block_end, group_end, group_first, first, count;
    __device__ __forceinline__ explicit Rows(int tokens) {
        int warp = threadIdx.x >> 5, group = warp / GROUP_WARPS;
        block_end = tokens - blockIdx.x * BLOCK_ROWS;
        group_end = block_end - BLOCK_ROWS + (group + 1) * GROUP_ROWS;
        group_first = max(group_end - GROUP_ROWS, 0);
        first = group_first + warp % GROUP_WARPS * WARP_ROWS;
        count = min(group_end - first, WARP_ROWS);
    }
};
