// Half precision, heads of 64: y and, where a gradient will be asked for, what it needs.
//
// A block has queries of one head, whose fragments and sums stay in registers; keys and values come in tiles of 64, two in
// flight. Keys are unit vectors already where they are to be, and a block's queries are made so and multiplied by their factor
// and by log2(e): a product is the exponent of two. So between two products nothing is left but to take powers, add and round.
// Scores of unit vectors are at most the factor: where a power of that fits the type, powers are taken as they are. Else they
// are measured from a maximum that follows the true one only when that has moved by a factor of 256, so that sums are seldom
// scaled anew.

// Flags of a call.
constexpr int UNIT = 1;
constexpr int LEVELS = 2;
// A gradient will be asked for: queries as they were multiplied take the place of those given.
constexpr int KEEP = 4;
// Keys and values lie in caches, a head a sample.
constexpr int CACHED = 8;

// The largest exponent of two whose powers, and those of its negative, keep their precision in the type.
template <typename T> __device__ __forceinline__ float most_exponent() { return 60.0f; }
template <> __device__ __forceinline__ float most_exponent<f16>() { return 14.0f; }

__device__ __forceinline__ float minus_infinity() { return -__int_as_float(0x7f800000); }

// Eight threads have a row of 64, a piece of eight elements each: the reciprocal norm.
template <typename T> __device__ __forceinline__ float row_norm(uint4 w) {
    float s = quad_sum((squares<T>(w.x) + squares<T>(w.y)) + (squares<T>(w.z) + squares<T>(w.w)));
    return inverse_norm(s + __shfl_xor_sync(ALL_LANES, s, 4));
}
template <typename T> __device__ __forceinline__ uint4 times(uint4 w, float f) {
    return make_uint4(times<T>(w.x, f), times<T>(w.y, f), times<T>(w.z, f), times<T>(w.w, f));
}

// Divides keys by their norms in place, eight threads a row and four rows a thread; the reciprocals go to `r`, [B, H, tokens].
constexpr int NORM_ROWS = 4;

template <typename T>
__device__ void unit_keys(T* k, float* r, int heads, int tokens, u64 batch_stride, u64 token_stride) {
    // Neighbouring rows of memory are the heads of one token.
    u32 of_batch = (u32)heads * tokens, first = blockIdx.x * (blockDim.x / 8 * NORM_ROWS) + threadIdx.x / 8;
    k += blockIdx.y * batch_stride + (threadIdx.x & 7) * 8;
    r += (u64)blockIdx.y * of_batch;
    uint4 w[NORM_ROWS];
#pragma unroll
    for (int i = 0; i < NORM_ROWS; i++) {
        u32 row = first + i * (blockDim.x / 8), token = row / heads, h = row % heads;
        if (row < of_batch) w[i] = *(const uint4*)(k + token * token_stride + h * WIDTH);
    }
#pragma unroll
    for (int i = 0; i < NORM_ROWS; i++) {
        u32 row = first + i * (blockDim.x / 8), token = row / heads, h = row % heads;
        float s = row_norm<T>(w[i]);
        if (row < of_batch) {
            *(uint4*)(k + token * token_stride + h * WIDTH) = times<T>(w[i], s);
            if ((threadIdx.x & 7) == 0) r[(u64)h * tokens + token] = s;
        }
    }
}

// Appends the keys (divided by their norms with `unit`) and values of new tokens to caches [B, H, capacity, 64] that hold
// `held` of them, eight threads a row.
template <typename T>
__device__ void append(const T* qkv, T* keys, T* values, int heads, int tokens, int held, int capacity, int unit, int total) {
    int row = blockIdx.x * (blockDim.x / 8) + threadIdx.x / 8, piece = (threadIdx.x & 7) * 8;
    bool there = row < total;
    int at = there ? row : 0, h = at % heads, token = at / heads % tokens, b = at / heads / tokens;
    u64 width = (u64)heads * WIDTH;
    const T* k = qkv + ((u64)b * tokens + token) * 3 * width + width + h * WIDTH + piece;
    u64 to = (((u64)b * heads + h) * capacity + held + token) * WIDTH + piece;
    uint4 x = *(const uint4*)k, v = *(const uint4*)(k + width);
    if (unit) x = times<T>(x, row_norm<T>(x));
    if (there) {
        *(uint4*)(keys + to) = x;
        *(uint4*)(values + to) = v;
    }
}

// Has the maxima follow a tile's scores, and scales the sums anew where that is needed.
__device__ __forceinline__ void follow(const float (&s)[M][8][4], float (&top)[2 * M], float (&sum)[2 * M], float (&o)[M][8][4]) {
    float now[2 * M];
    bool moved = false;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        float x = fmaxf(s[i >> 1][0][2 * (i & 1)], s[i >> 1][0][2 * (i & 1) + 1]);
#pragma unroll
        for (int n = 1; n < 8; n++) x = fmaxf(x, fmaxf(s[i >> 1][n][2 * (i & 1)], s[i >> 1][n][2 * (i & 1) + 1]));
        now[i] = quad_max(x);
        moved |= now[i] - top[i] > 8.0f;
    }
    if (!__any_sync(ALL_LANES, moved)) return;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        float next = fmaxf(top[i], now[i]);
        float f = exp2_fast(top[i] - next);
        top[i] = next;
        sum[i] *= f;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            o[i >> 1][n][2 * (i & 1)] *= f;
            o[i >> 1][n][2 * (i & 1) + 1] *= f;
        }
    }
}

// Attends to the tiles `begin` to `end`: adds to the sums `o` of values and `sum` of powers, measured from `top`, which follows
// the maxima where it is MEASURED. `copy` begins to fill a stage with a tile; the first is on its way. With a plan a query sees
// that many keys, else all.
template <typename T, bool MEASURED, typename Copy>
__device__ __forceinline__ void walk(const Left& q, float (&top)[2 * M], float (&sum)[2 * M], float (&o)[M][8][4],
                                     const Stages& stages, const Copy& copy, int begin, int end, int keys, const int* plan,
                                     const Rows& my) {
    int lane = threadIdx.x & 31;
    // Keys that the group's last query and its first see.
    int most = my.group_end > 0 ? (plan ? plan[my.group_end - 1] : keys) : 0;
    int all = my.group_end > 0 ? (plan ? plan[my.group_first] : keys) : 0;
    Places at(lane);
    for (int tile = begin; tile < end; tile++) {
        int stage = (tile - begin) & 1;
        u32 kt = stages.first(stage), vt = stages.second(stage);
        stages.arrive(tile - begin);
        __syncthreads();
        if (tile + 1 < end) copy(tile + 1, stage ^ 1);
        if (tile * TILE >= most) continue;

        float s[M][8][4];
        multiply_across<T, 64>(s, q, kt, 0, at);
        finish<0>(s);
        if ((tile + 1) * TILE > all) {
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                int row = min(my.first + i * 8 + (lane >> 2), my.group_end - 1);
                int sees = (plan ? plan[row] : keys) - tile * TILE - (lane & 3) * 2;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    if (n * 8 >= sees) s[i >> 1][n][2 * (i & 1)] = minus_infinity();
                    if (n * 8 + 1 >= sees) s[i >> 1][n][2 * (i & 1) + 1] = minus_infinity();
                }
            }
        }
        if (MEASURED) follow(s, top, sum, o);
        // The first half is multiplied while the second's exponentials are taken.
        u32 p[2][M][2][4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
#pragma unroll
                for (int n = 4 * half; n < 4 * half + 4; n++) {
                    int m = i >> 1, e = 2 * (i & 1);
                    float x = exp2_fast(MEASURED ? s[m][n][e] - top[i] : s[m][n][e]);
                    float z = exp2_fast(MEASURED ? s[m][n][e + 1] - top[i] : s[m][n][e + 1]);
                    sum[i] += x + z;
                    p[half][m][n / 2 % 2][2 * (n & 1) + (i & 1)] = pack<T>(x, z);
                }
            }
            multiply_down<T, 32>(o, p[half], vt, half, at);
        }
        finish<0>(o);
        keep(p[0]);
        keep(p[1]);
    }
}

template <typename T>
__device__ void forward(T* q, const T* k, const T* v, T* y, float* stats, const int* plan, const float* scale_mul, float* parts,
                        int heads, int queries, int keys, int splits, int flags, u64 q_batch, u64 q_token, u64 k_batch, u64 k_head,
                        u64 k_token, const TensorMap& k_map, const TensorMap& v_map) {
    __shared__ __align__(1024) char tiles[(TOGETHER ? 5 : 4) * TILE_BYTES];
    __shared__ u64 barriers[2];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int b = blockIdx.y / heads, h = blockIdx.y % heads;
    Rows my(queries);
    int first = my.first, rows = my.count;
    bool levels = flags & LEVELS, unit = flags & UNIT;
    // Keys that the block's last query sees.
    int seen = levels ? plan[my.block_end - 1] : keys;
    int n = (seen + TILE - 1) / TILE;
    int begin = splits == 1 ? 0 : blockIdx.z * n / splits, end = splits == 1 ? n : (blockIdx.z + 1) * n / splits;

    q += b * q_batch + h * WIDTH + (u64)first * q_token;
    k += b * k_batch + h * k_head;
    v += b * k_batch + h * k_head;
    Stages stages(tiles, barriers);
    // Where this head's columns are: of the caches, or of q, k and v side by side.
    bool cached = flags & CACHED;
    int sample = cached ? blockIdx.y : b, k_column = cached ? 0 : (heads + h) * WIDTH, v_column = cached ? 0 : (2 * heads + h) * WIDTH;
    auto copy = [&](int tile, int stage) {
        stages.fill(stage, tile * TILE, keys, sample, k_map, k_column, k, k_token, v_map, v_column, v, k_token);
        copies_begin();
    };
    if (begin < end) copy(begin, 0);

    u32 qa[M][4][4];
    load_rows(qa, (const T*)q, q_token, rows);
    float factor = query_factor(scale_mul, h, unit, WIDTH) * LOG2_E;
    float rq[2 * M], top[2 * M], sum[2 * M];
    if (unit) inverse_norms<T>(rq, qa);
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        if (!unit) rq[i] = 1;
        sum[i] = 0;
    }
    scale_rows<T>(qa, rq, factor);
    if (flags & KEEP) write_rows(qa, q, q_token, rows);
    Left left(qa, tiles + 4 * TILE_BYTES);
    lefts_made();
    float o[M][8][4] = {};

    if (unit && factor <= most_exponent<T>()) {
#pragma unroll
        for (int i = 0; i < 2 * M; i++) top[i] = 0;
        walk<T, false>(left, top, sum, o, stages, copy, begin, end, keys, levels ? plan : nullptr, my);
    } else {
#pragma unroll
        for (int i = 0; i < 2 * M; i++) top[i] = minus_infinity();
        walk<T, true>(left, top, sum, o, stages, copy, begin, end, keys, levels ? plan : nullptr, my);
    }

    u64 of_head = (u64)blockIdx.y * queries + first;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        sum[i] = quad_sum(sum[i]);
        float inverse = 1.0f / sum[i], lse = top[i] + log2f(sum[i]);
        int row = i * 8 + (lane >> 2);
        if ((lane & 3) == 0 && row < rows) {
            if (flags & KEEP) {
                stats[of_head + row] = lse;
                stats[(u64)gridDim.y * queries + of_head + row] = rq[i];
                if (!unit) stats[2 * (u64)gridDim.y * queries + of_head + row] = 1;
            }
            if (splits > 1) parts[(u64)blockIdx.z * gridDim.y * queries + of_head + row] = lse;
        }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            o[i >> 1][n][2 * (i & 1)] *= inverse;
            o[i >> 1][n][2 * (i & 1) + 1] *= inverse;
        }
    }
    if (splits > 1) {
        // After the sums of every part: the parts' results.
        float* part = parts + (u64)splits * gridDim.y * queries +
                      ((u64)blockIdx.z * gridDim.y * queries + of_head) * WIDTH + (lane & 3) * 2;
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            int row = i * 8 + (lane >> 2);
            if (row < rows)
#pragma unroll
                for (int n = 0; n < 8; n++)
                    *(float2*)(part + row * WIDTH + n * 8) =
                        make_float2(o[i >> 1][n][2 * (i & 1)], o[i >> 1][n][2 * (i & 1) + 1]);
        }
        return;
    }
    __syncthreads();
    y += ((u64)b * queries + first) * heads * WIDTH + h * WIDTH;
    store_rows(tiles + warp * WARP_ROWS * 128, o, y, (u64)heads * WIDTH, rows);
}

// Joins the results over parts of the keys, in the parts' order. A warp a query; y is [B, queries, H, 64].
template <typename T>
__device__ void join(const float* parts, T* y, int heads, int queries, int splits, int total) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
    if (row >= total) return;
    const float* sums = parts;
    const float* results = parts + (u64)splits * total;
    float top = sums[row];
    for (int z = 1; z < splits; z++) top = fmaxf(top, sums[(u64)z * total + row]);
    float weight = 0, x = 0, w = 0;
    for (int z = 0; z < splits; z++) {
        float f = exp2_fast(sums[(u64)z * total + row] - top);
        float2 r = *(const float2*)(results + ((u64)z * total + row) * WIDTH + lane * 2);
        weight += f;
        x += f * r.x;
        w += f * r.y;
    }
    int of_head = row / queries, i = row % queries, b = of_head / heads, h = of_head % heads;
    u32* to = (u32*)(y + (((u64)b * queries + i) * heads + h) * WIDTH);
    to[lane] = pack<T>(x / weight, w / weight);
}

#define FORWARD(T)                                                                                                         \
    extern "C" __global__ void unit_keys_##T(T* k, float* r, int heads, int tokens, u64 batch, u64 token) {                \
        unit_keys(k, r, heads, tokens, batch, token);                                                                      \
    }                                                                                                                      \
    extern "C" __global__ void append_rows_##T(const T* qkv, T* keys, T* values, int heads, int tokens, int held,          \
                                               int capacity, int unit, int total) {                                        \
        append(qkv, keys, values, heads, tokens, held, capacity, unit, total);                                             \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, TOGETHER ? 5 : 2) forward_##T(                                   \
        T* q, const T* k, const T* v, T* y, float* stats, const int* plan, const float* scale_mul, float* parts,           \
        int heads, int queries, int keys, int splits, int flags, u64 q_batch, u64 q_token, u64 k_batch, u64 k_head,        \
        u64 k_token, const __grid_constant__ TensorMap k_map, const __grid_constant__ TensorMap v_map) {                   \
        forward(q, k, v, y, stats, plan, scale_mul, parts, heads, queries, keys, splits, flags, q_batch, q_token, k_batch, \
                k_head, k_token, k_map, v_map);                                                                            \
    }                                                                                                                      \
    extern "C" __global__ void join_##T(const float* parts, T* y, int heads, int queries, int splits, int total) {         \
        join(parts, y, heads, queries, splits, total);                                                                     \
    }
FORWARD(bf16)
FORWARD(f16)
