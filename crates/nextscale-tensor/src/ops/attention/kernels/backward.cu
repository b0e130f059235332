// Half precision, heads of 64: gradients, in two kernels that compute the probabilities anew. In the first a warp owns
// queries and walks the keys; in the second it owns keys and walks the queries that see them. What a warp owns stays in
// registers, so nothing is added by several warps and the order of every sum is fixed.
//
// `qkv` is as the forward pass left it: keys of length one, queries of length one times the head's factor and log2(e).
// `stats` is what it kept, three times [B, H, L]: the logarithm (base 2) of the sum of exponentials, the reciprocal norms of
// queries and of keys. Without normalisation the latter two are 1.

// Columns of the parts that a tile is multiplied in, and blocks of a multiprocessor, as registers allow.
constexpr int PART = TOGETHER ? 64 : 16;
constexpr int Q_BLOCKS = TOGETHER ? 4 : 2, K_BLOCKS = TOGETHER ? 3 : 2;
// Behind the stages, where rows on the left lie in shared memory.
constexpr int LEFTS_AT = 4 * TILE_BYTES;

// From t, the gradient of a unit vector u over `factor`, to that of the vector: r factor (t - u (u.t)), both a warp's rows; u is
// x times `part`. Returns u.t of every row.
template <typename T>
__device__ __forceinline__ void through_norm(float (&t)[M][8][4], const u32 (&x)[M][4][4], const float (&r)[2 * M],
                                             bool unit, float part, float factor, float (&along)[2 * M]) {
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int m = i >> 1, e = 2 * (i & 1);
        float dot = 0;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            u32 w = x[m][n >> 1][2 * (n & 1) + (i & 1)];
            dot += lower<T>(w) * t[m][n][e] + upper<T>(w) * t[m][n][e + 1];
        }
        along[i] = quad_sum(dot) * part;
        // At the bound of the norm the divisor is a constant.
        float back = unit && !at_bound(r[i]) ? along[i] * part : 0.0f, f = factor * r[i];
#pragma unroll
        for (int n = 0; n < 8; n++) {
            u32 w = x[m][n >> 1][2 * (n & 1) + (i & 1)];
            t[m][n][e] = f * (t[m][n][e] - back * lower<T>(w));
            t[m][n][e + 1] = f * (t[m][n][e + 1] - back * upper<T>(w));
        }
    }
}

template <typename T>
__device__ void backward_queries(const T* qkv, const T* y, const T* g, const float* stats, const int* plan,
                                 const float* scale_mul, T* dqkv, float* deltas, float* slopes, int heads, int tokens,
                                 int unit, const TensorMap& map) {
    extern __shared__ __align__(1024) char tiles[];
    __shared__ u64 barriers[2];
    __shared__ float warp_slopes[THREADS / 32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int b = blockIdx.y / heads, h = blockIdx.y % heads;
    Rows my(tokens);
    int first = my.first, rows = my.count;
    // Keys that the block's last query sees, that the group's last and first see.
    int seen = plan[my.block_end - 1];
    int most = my.group_end > 0 ? plan[my.group_end - 1] : 0, all = my.group_end > 0 ? plan[my.group_first] : 0;
    int end = (seen + TILE - 1) / TILE;

    u64 width = (u64)heads * WIDTH, stride = 3 * width;
    const T* q = qkv + (u64)b * tokens * stride + h * WIDTH;
    const T *k = q + width, *v = k + width;
    Stages stages(tiles, barriers);
    auto copy = [&](int tile, int stage) {
        stages.fill(stage, tile * TILE, tokens, b, map, (heads + h) * WIDTH, k, stride, map, (2 * heads + h) * WIDTH, v, stride);
        copies_begin();
    };
    copy(0, 0);

    u32 qa[M][4][4], ga[M][4][4];
    load_rows(qa, q + first * stride, stride, rows);
    u64 of_y = ((u64)b * tokens + first) * width + h * WIDTH, of_head = (u64)blockIdx.y * tokens + first;
    load_rows(ga, g + of_y, width, rows);
    float factor = query_factor(scale_mul, h, unit, WIDTH);
    float rq[2 * M], lse[2 * M], delta[2 * M];
    {
        u32 ya[M][4][4];
        load_rows(ya, y + of_y, width, rows);
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            int row = i * 8 + (lane >> 2);
            bool there = row < rows;
            float s = 0;
#pragma unroll
            for (int kk = 0; kk < 4; kk++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    u32 a = ya[i >> 1][kk][2 * e + (i & 1)], w = ga[i >> 1][kk][2 * e + (i & 1)];
                    s += lower<T>(a) * lower<T>(w) + upper<T>(a) * upper<T>(w);
                }
            delta[i] = quad_sum(s);
            lse[i] = there ? stats[of_head + row] : 0.0f;
            rq[i] = there ? stats[(u64)gridDim.y * tokens + of_head + row] : 0.0f;
            if (there && (lane & 3) == 0) deltas[of_head + row] = delta[i];
        }
    }
    Left ql(qa, tiles + LEFTS_AT), gl(ga, tiles + LEFTS_AT + TILE_BYTES);
    lefts_made();
    float dq[M][8][4] = {};
    Places at(lane);

    for (int tile = 0; tile < end; tile++) {
        int stage = tile & 1;
        u32 kt = stages.first(stage), vt = stages.second(stage);
        stages.arrive(tile);
        __syncthreads();
        if (tile + 1 < end) copy(tile + 1, stage ^ 1);
        if (tile * TILE >= most) continue;
        bool hides = (tile + 1) * TILE > all;
        u32 ds[M][PART / 16][4];
#pragma unroll
        for (int part = 0; part < TILE / PART; part++) {
            float s[M][PART / 8][4], dp[M][PART / 8][4];
            multiply_across<T, PART>(s, ql, kt, part, at);
            multiply_across<T, PART>(dp, gl, vt, part, at);
            finish<1>(s);
            if (part > 0) keep(ds);
#pragma unroll
            for (int n = 0; n < PART / 8; n++)
#pragma unroll
                for (int e = 0; e < 4 * M; e++) {
                    float& x = s[e >> 2][n][e & 3];
                    x = exp2_fast(x - lse[e >> 1]);
                }
            finish<0>(dp);
#pragma unroll
            for (int n = 0; n < PART / 8; n++)
#pragma unroll
                for (int e = 0; e < 4 * M; e++) s[e >> 2][n][e & 3] *= dp[e >> 2][n][e & 3] - delta[e >> 1];
            if (hides) {
#pragma unroll
                for (int i = 0; i < 2 * M; i++) {
                    int row = min(first + i * 8 + (lane >> 2), my.group_end - 1);
                    int sees = plan[row] - tile * TILE - part * PART - (lane & 3) * 2;
#pragma unroll
                    for (int n = 0; n < PART / 8; n++) {
                        if (n * 8 >= sees) s[i >> 1][n][2 * (i & 1)] = 0;
                        if (n * 8 + 1 >= sees) s[i >> 1][n][2 * (i & 1) + 1] = 0;
                    }
                }
            }
            pack_rows<T, PART>(ds, s);
            multiply_down<T, PART>(dq, ds, kt, part, at);
        }
        finish<0>(dq);
        keep(ds);
    }

    float along[2 * M], slope = 0;
    // Queries lie there times factor and log2(e); at a factor of 0 their directions are lost, and not needed.
    float part = factor > 0 ? 1 / (factor * LOG2_E) : 0.0f;
    load_rows(qa, q + first * stride, stride, rows);
    through_norm<T>(dq, qa, rq, unit, part, factor, along);
#pragma unroll
    for (int i = 0; i < 2 * M; i++)
        if (i * 8 + (lane >> 2) < rows) slope += along[i];
#pragma unroll
    for (int w = 4; w < 32; w *= 2) slope += __shfl_xor_sync(ALL_LANES, slope, w);
    if (lane == 0) warp_slopes[warp] = slope;
    __syncthreads();
    if (threadIdx.x == 0 && unit) {
        float s = 0;
        for (int w = 0; w < THREADS / 32; w++) s += warp_slopes[w];
        slopes[(u64)blockIdx.y * gridDim.x + blockIdx.x] = s * factor;
    }
    T* out = dqkv + ((u64)b * tokens + first) * stride + h * WIDTH;
    store_rows(tiles + warp * WARP_ROWS * 128, dq, out, stride, rows);
}

template <typename T>
__device__ void backward_keys(const T* qkv, const T* g, const float* stats, const int* plan, const float* scale_mul,
                              const float* deltas, T* dqkv, int heads, int tokens, int unit, const TensorMap& q_map,
                              const TensorMap& g_map) {
    extern __shared__ __align__(1024) char tiles[];
    __shared__ u64 barriers[2];
    // Of the tile's queries: logarithm of the sum, delta.
    __shared__ float rows_of[2][2][TILE];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, group = warp / GROUP_WARPS;
    int b = blockIdx.y / heads, h = blockIdx.y % heads;
    // The first keys are seen by the most queries, so their blocks come first.
    int block_first = blockIdx.x * BLOCK_ROWS, group_first = min(block_first + group * GROUP_ROWS, tokens);
    int group_end = min(group_first + GROUP_ROWS, tokens);
    int first = min(group_first + warp % GROUP_WARPS * WARP_ROWS, tokens), rows = min(tokens - first, WARP_ROWS);
    // The first query that sees any of the block's keys and any of the group's; tiles are cut from there.
    int begin = plan[tokens + block_first], least = group_first < tokens ? plan[tokens + group_first] : tokens;
    int end = (tokens - begin + TILE - 1) / TILE;

    u64 width = (u64)heads * WIDTH, stride = 3 * width;
    const T* q = qkv + (u64)b * tokens * stride + h * WIDTH;
    const T *k = q + width, *v = k + width;
    g += (u64)b * tokens * width + h * WIDTH;
    const float* lse = stats + (u64)blockIdx.y * tokens;
    const float* delta = deltas + (u64)blockIdx.y * tokens;
    u32 rows_at = shared_address(rows_of);
    Stages stages(tiles, barriers);
    auto copy = [&](int tile, int stage) {
        int at = begin + tile * TILE;
        stages.fill(stage, at, tokens, b, q_map, h * WIDTH, q, stride, g_map, h * WIDTH, g, width);
        if (threadIdx.x < TILE) {
            bool there = at + threadIdx.x < tokens;
            int row = there ? at + threadIdx.x : 0;
            u32 to = rows_at + (stage * 2 * TILE + threadIdx.x) * 4;
            copy_4(to, lse + row, there);
            copy_4(to + TILE * 4, delta + row, there);
        }
        copies_begin();
    };
    copy(0, 0);

    u32 ka[M][4][4], va[M][4][4];
    load_rows(ka, k + first * stride, stride, rows);
    load_rows(va, v + first * stride, stride, rows);
    Left kl(ka, tiles + LEFTS_AT), vl(va, tiles + LEFTS_AT + TILE_BYTES);
    lefts_made();
    const float* rk = stats + (u64)(2 * gridDim.y + blockIdx.y) * tokens + first;
    // The first query that sees a key; the first that sees all of the group's.
    int starts[2 * M], every = group_end > group_first ? plan[tokens + group_end - 1] : 0;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int row = i * 8 + (lane >> 2);
        starts[i] = row < rows ? plan[tokens + first + row] : 0;
    }
    float dk[M][8][4] = {}, dv[M][8][4] = {};
    Places at(lane);

    for (int tile = 0; tile < end; tile++) {
        int stage = tile & 1;
        u32 qt = stages.first(stage), gt = stages.second(stage);
        stages.arrive(tile);
        __syncthreads();
        if (tile + 1 < end) copy(tile + 1, stage ^ 1);
        int from = begin + tile * TILE;
        if (from + TILE <= least) continue;
        bool hides = from < every;
#pragma unroll
        for (int part = 0; part < TILE / PART; part++) {
            float s[M][PART / 8][4], dp[M][PART / 8][4];
            multiply_across<T, PART>(s, kl, qt, part, at);
            if (TOGETHER) multiply_across<T, PART>(dp, vl, gt, part, at);
            finish<1>(s);
            const float* of = &rows_of[stage][0][part * PART + (lane & 3) * 2];
#pragma unroll
            for (int n = 0; n < PART / 8; n++) {
                float2 l = *(const float2*)(of + n * 8);
#pragma unroll
                for (int e = 0; e < 4 * M; e++) {
                    float& x = s[e >> 2][n][e & 3];
                    x = exp2_fast(x - (e & 1 ? l.y : l.x));
                }
            }
            if (hides) {
#pragma unroll
                for (int i = 0; i < 2 * M; i++) {
                    int ahead = starts[i] - from - part * PART - (lane & 3) * 2;
#pragma unroll
                    for (int n = 0; n < PART / 8; n++) {
                        if (n * 8 < ahead) s[i >> 1][n][2 * (i & 1)] = 0;
                        if (n * 8 + 1 < ahead) s[i >> 1][n][2 * (i & 1) + 1] = 0;
                    }
                }
            }
            u32 p[M][PART / 16][4];
            pack_rows<T, PART>(p, s);
            multiply_down<T, PART>(dv, p, gt, part, at);
            if (!TOGETHER) multiply_across<T, PART>(dp, vl, gt, part, at);
            finish<1>(dp);
#pragma unroll
            for (int n = 0; n < PART / 8; n++) {
                float2 d = *(const float2*)(of + TILE + n * 8);
#pragma unroll
                for (int e = 0; e < 4 * M; e++) s[e >> 2][n][e & 3] *= dp[e >> 2][n][e & 3] - (e & 1 ? d.y : d.x);
            }
            u32 ds[M][PART / 16][4];
            pack_rows<T, PART>(ds, s);
            multiply_down<T, PART>(dk, ds, qt, part, at);
            finish<0>(dv);
            finish<0>(dk);
            keep(p);
            keep(ds);
        }
    }

    float along[2 * M], inverse[2 * M];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) inverse[i] = i * 8 + (lane >> 2) < rows ? rk[i * 8 + (lane >> 2)] : 0.0f;
    load_rows(ka, k + first * stride, stride, rows);
    through_norm<T>(dk, ka, inverse, unit, 1, 1 / LOG2_E, along);
    __syncthreads();
    char* stage = tiles + warp * WARP_ROWS * 128;
    T* out = dqkv + ((u64)b * tokens + first) * stride + width + h * WIDTH;
    store_rows(stage, dk, out, stride, rows);
    store_rows(stage, dv, out + width, stride, rows);
}

#define BACKWARD(T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, Q_BLOCKS) backward_queries_##T(                                  \
        const T* qkv, const T* y, const T* g, const float* stats, const int* plan, const float* scale_mul, T* dqkv,        \
        float* deltas, float* slopes, int heads, int tokens, int unit, const __grid_constant__ TensorMap map) {            \
        backward_queries(qkv, y, g, stats, plan, scale_mul, dqkv, deltas, slopes, heads, tokens, unit, map);               \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, K_BLOCKS) backward_keys_##T(                                     \
        const T* qkv, const T* g, const float* stats, const int* plan, const float* scale_mul, const float* deltas,        \
        T* dqkv, int heads, int tokens, int unit, const __grid_constant__ TensorMap q_map,                                 \
        const __grid_constant__ TensorMap g_map) {                                                                         \
        backward_keys(qkv, g, stats, plan, scale_mul, deltas, dqkv, heads, tokens, unit, q_map, g_map);                    \
    }
BACKWARD(bf16)
BACKWARD(f16)
