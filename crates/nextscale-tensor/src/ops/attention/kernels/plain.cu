// Any head width up to 128, any type of storage, float32 arithmetic throughout: what half-precision heads of another width
// and float32 tensors use, and what results are verified with. Queries and keys are normalised as they are read, as on the
// CPU. Sums are taken in chains of 16 products, which are then added up.
//
// Compiled for one type of storage, `Element`, and heads up to WIDE, 64 or 128, which are named before this file.
//
// A block has SIDE queries or keys of one head and 256 threads, and walks tiles of SIDE of the other kind; both sides' rows
// lie in shared memory as floats. Thread (x, y) of 16 by 16 has the scores of rows y, y + 16, ... and columns x, x + 16, ...
// of a tile, and columns x, x + 16, ... of the result's rows y, y + 16, ...

constexpr int THREADS = 256;
constexpr int CHAIN = 16;
constexpr float LEAST_NORM = 1e-12f;
constexpr float MOST_SCALE_MUL = 4.6051702f;

// Rows of a tile and the widest head it has room for; rows are padded so that 16 rows' elements lie in different banks.
struct Tile {
    static constexpr int SIDE = WIDE == 64 ? 32 : 16;
    static constexpr int PITCH = WIDE + 4;
    static constexpr int PER = SIDE / 16;
    static constexpr int COLUMNS = WIDE / 16;
    alignas(16) float x[SIDE * PITCH];
};

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// What a head's queries are multiplied by. A clamped element counts as ln 100; NaN stays NaN.
__device__ __forceinline__ float query_factor(const float* scale_mul, int head, bool unit, int dim) {
    if (!unit) return 0.25f / sqrtf((float)dim);
    float s = scale_mul[head];
    return expf(s > MOST_SCALE_MUL ? MOST_SCALE_MUL : s);
}

// 1 / max(norm, 1e-12) from the sum of squares; not a number where that is none or infinite.
__device__ __forceinline__ float inverse_norm(float squares) {
    return 1.0f / fmaxf(sqrtf(squares), LEAST_NORM) + (squares - squares);
}

// Over the 16 threads of a row.
__device__ __forceinline__ float row_sum(float x) {
    for (int w = 1; w < 16; w *= 2) x += __shfl_xor_sync(0xffffffffu, x, w);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
    for (int w = 1; w < 16; w *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, w));
    return x;
}

// Reads rows of `dim` into a tile, zeros where they are not there or beyond `dim`; 16 threads a row. With `unit` they are
// divided by their norms, in any case multiplied by `factor`. The norms' reciprocals go to `inverse` where there is one.
template <typename T>
__device__ void read(Tile& tile, const T* from, u64 stride, int rows, int dim, bool unit, float factor, float* inverse) {
    constexpr int COLUMNS = Tile::COLUMNS;
    int x = threadIdx.x & 15, y = threadIdx.x >> 4;
#pragma unroll 1
    for (int r = y; r < Tile::SIDE; r += 16) {
        float v[COLUMNS], s = 0;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int column = x + c * 16;
            v[c] = r < rows && column < dim ? to_f32(from[r * stride + column]) : 0.0f;
            s = fmaf(v[c], v[c], s);
        }
        float f = factor;
        if (unit) {
            s = inverse_norm(row_sum(s));
            f *= s;
        }
        if (inverse && x == 0) inverse[r] = unit ? s : 1.0f;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) tile.x[r * Tile::PITCH + x + c * 16] = v[c] * f;
    }
}

// s[i][j] = row y + 16 i of a times row x + 16 j of b.
template <int PER>
__device__ __forceinline__ void rows_times_rows(float (&s)[PER][PER], const Tile& a, const Tile& b, int dim) {
    constexpr int PITCH = Tile::PITCH;
    int x = threadIdx.x & 15, y = threadIdx.x >> 4;
#pragma unroll
    for (int i = 0; i < PER; i++)
#pragma unroll
        for (int j = 0; j < PER; j++) s[i][j] = 0;
    for (int d = 0; d < dim; d += CHAIN) {
        float chain[PER][PER] = {};
#pragma unroll
        for (int e = 0; e < CHAIN; e += 4) {
            float4 u[PER], v[PER];
#pragma unroll
            for (int i = 0; i < PER; i++) {
                u[i] = *(const float4*)&a.x[(y + 16 * i) * PITCH + d + e];
                v[i] = *(const float4*)&b.x[(x + 16 * i) * PITCH + d + e];
            }
#pragma unroll
            for (int i = 0; i < PER; i++)
#pragma unroll
                for (int j = 0; j < PER; j++)
                    chain[i][j] = fmaf(u[i].w, v[j].w,
                                       fmaf(u[i].z, v[j].z, fmaf(u[i].y, v[j].y, fmaf(u[i].x, v[j].x, chain[i][j]))));
        }
#pragma unroll
        for (int i = 0; i < PER; i++)
#pragma unroll
            for (int j = 0; j < PER; j++) s[i][j] += chain[i][j];
    }
}

// o[i][c] += sum over r of p[row y + 16 i][r] b[r][x + 16 c].
template <int PER, int COLUMNS>
__device__ __forceinline__ void weigh_rows(float (&o)[PER][COLUMNS], const float* p, const Tile& b) {
    constexpr int SIDE = Tile::SIDE, PITCH = Tile::PITCH;
    int x = threadIdx.x & 15, y = threadIdx.x >> 4;
#pragma unroll 1
    for (int k = 0; k < SIDE; k += CHAIN) {
        float chain[PER][COLUMNS] = {};
#pragma unroll
        for (int e = 0; e < CHAIN; e++) {
            float w[PER];
#pragma unroll
            for (int i = 0; i < PER; i++) w[i] = p[(y + 16 * i) * (SIDE + 1) + k + e];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                float v = b.x[(k + e) * PITCH + x + 16 * c];
#pragma unroll
                for (int i = 0; i < PER; i++) chain[i][c] = fmaf(w[i], v, chain[i][c]);
            }
        }
#pragma unroll
        for (int i = 0; i < PER; i++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) o[i][c] += chain[i][c];
    }
}

// y, and where `stats` is given the largest score and the reciprocal of the sum of exponentials of every query, twice
// [B, H, queries]. Keys may come from a cache, normalised already.
template <typename T>
__device__ void forward(const T* q, const T* k, const T* v, T* y, float* stats, const int* plan, const float* scale_mul,
                        int heads, int dim, int queries, int keys, int unit_queries, int unit_keys, u64 q_batch, u64 q_token,
                        u64 k_batch, u64 k_head, u64 k_token) {
    constexpr int SIDE = Tile::SIDE, PER = Tile::PER, COLUMNS = Tile::COLUMNS;
    __shared__ Tile qt, kt;
    __shared__ float p[SIDE * (SIDE + 1)];
    int x = threadIdx.x & 15, ty = threadIdx.x >> 4;
    int b = blockIdx.y / heads, h = blockIdx.y % heads;
    // The last queries see the most keys, so their blocks come first.
    int first = (gridDim.x - 1 - blockIdx.x) * SIDE, rows = min(queries - first, SIDE);
    int seen = plan ? plan[first + rows - 1] : keys;
    q += b * q_batch + first * q_token + h * dim;
    k += b * k_batch + h * k_head;
    v += b * k_batch + h * k_head;
    read(qt, q, q_token, rows, dim, unit_queries, query_factor(scale_mul, h, unit_queries, dim), (float*)nullptr);
    int sees[PER];
    float top[PER], sum[PER], o[PER][COLUMNS] = {};
#pragma unroll
    for (int i = 0; i < PER; i++) {
        sees[i] = plan ? plan[min(first + ty + 16 * i, queries - 1)] : keys;
        top[i] = -infinity();
        sum[i] = 0;
    }
    for (int at = 0; at < seen; at += SIDE) {
        __syncthreads();
        read(kt, k + at * k_token, k_token, keys - at, dim, unit_keys, 1.0f, (float*)nullptr);
        __syncthreads();
        float s[PER][PER];
        rows_times_rows(s, qt, kt, dim);
#pragma unroll
        for (int i = 0; i < PER; i++) {
            float most = top[i];
#pragma unroll
            for (int j = 0; j < PER; j++) {
                if (at + x + 16 * j >= sees[i]) s[i][j] = -infinity();
                most = fmaxf(most, s[i][j]);
            }
            most = row_max(most);
            float f = expf(top[i] - most), t = 0;
            top[i] = most;
#pragma unroll
            for (int j = 0; j < PER; j++) {
                float e = expf(s[i][j] - most);
                t += e;
                p[(ty + 16 * i) * (SIDE + 1) + x + 16 * j] = e;
            }
            sum[i] = sum[i] * f + row_sum(t);
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) o[i][c] *= f;
        }
        __syncthreads();
        read(kt, v + at * k_token, k_token, keys - at, dim, false, 1.0f, (float*)nullptr);
        __syncthreads();
        weigh_rows(o, p, kt);
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int row = ty + 16 * i;
        if (row >= rows) continue;
        float inverse = 1.0f / sum[i];
        u64 of_head = (u64)blockIdx.y * queries + first + row;
        if (stats && x == 0) {
            stats[of_head] = top[i];
            stats[(u64)gridDim.y * queries + of_head] = inverse;
        }
        T* to = y + (((u64)b * queries + first + row) * heads + h) * dim;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            if (x + 16 * c < dim) to[x + 16 * c] = from_f32<T>(o[i][c] * inverse);
    }
}

// From the gradient of rows as they entered the product to that of the rows: t of a thread's columns, `unit` the rows as
// they entered. Returns t times the row, the gradient of the logarithm of the factor.
template <int PER, int COLUMNS, typename T>
__device__ __forceinline__ float write_gradient(float (&t)[PER][COLUMNS], const Tile& entered, const float* inverse,
                                                bool unit, float factor, T* to, u64 stride, int rows, int dim) {
    constexpr int PITCH = Tile::PITCH;
    int x = threadIdx.x & 15, ty = threadIdx.x >> 4;
    float slopes = 0;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int row = ty + 16 * i;
        float dot = 0;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) dot = fmaf(t[i][c], entered.x[row * PITCH + x + 16 * c], dot);
        dot = row_sum(dot);
        if (row >= rows) continue;
        slopes += dot;
        float r = inverse[row], f = factor * r;
        // At the bound of the norm the divisor is a constant.
        float back = unit && r < 1.0f / LEAST_NORM ? dot * r / factor : 0.0f;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int column = x + 16 * c;
            if (column < dim)
                to[row * stride + column] = from_f32<T>(t[i][c] * f - back * entered.x[row * PITCH + column]);
        }
    }
    return slopes;
}

// The gradient of queries, delta (the row sums of g times y) for the other kernel, and a block's part of scale_mul's.
template <typename T>
__device__ void backward_queries(const T* qkv, const T* y, const T* g, const float* stats, const int* plan,
                                 const float* scale_mul, T* dqkv, float* deltas, float* slopes, int heads, int dim, int tokens,
                                 int unit) {
    constexpr int SIDE = Tile::SIDE, PER = Tile::PER, COLUMNS = Tile::COLUMNS;
    __shared__ Tile qt, gt, kt;
    __shared__ float p[SIDE * (SIDE + 1)], inverse[SIDE], scratch[32];
    int x = threadIdx.x & 15, ty = threadIdx.x >> 4;
    int b = blockIdx.y / heads, h = blockIdx.y % heads;
    int first = (gridDim.x - 1 - blockIdx.x) * SIDE, rows = min(tokens - first, SIDE), seen = plan[first + rows - 1];
    u64 width = (u64)heads * dim, stride = 3 * width;
    const T *q = qkv + (u64)b * tokens * stride + h * dim, *k = q + width, *v = k + width;
    u64 of_y = ((u64)b * tokens + first) * width + h * dim, of_head = (u64)blockIdx.y * tokens + first;
    float factor = query_factor(scale_mul, h, unit, dim);
    read(qt, q + first * stride, stride, rows, dim, unit, factor, inverse);
    read(gt, g + of_y, width, rows, dim, false, 1.0f, (float*)nullptr);
    read(kt, y + of_y, width, rows, dim, false, 1.0f, (float*)nullptr);
    __syncthreads();
    float top[PER], over[PER], delta[PER], dq[PER][COLUMNS] = {};
    int sees[PER];
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int row = ty + 16 * i;
        float s = 0;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            s = fmaf(gt.x[row * Tile::PITCH + x + 16 * c], kt.x[row * Tile::PITCH + x + 16 * c], s);
        delta[i] = row_sum(s);
        bool there = row < rows;
        if (there && x == 0) deltas[of_head + row] = delta[i];
        top[i] = there ? stats[of_head + row] : 0.0f;
        over[i] = there ? stats[(u64)gridDim.y * tokens + of_head + row] : 0.0f;
        sees[i] = there ? plan[first + row] : 0;
    }
    for (int at = 0; at < seen; at += SIDE) {
        __syncthreads();
        read(kt, v + at * stride, stride, tokens - at, dim, false, 1.0f, (float*)nullptr);
        __syncthreads();
        float s[PER][PER], dp[PER][PER];
        rows_times_rows(dp, gt, kt, dim);
        __syncthreads();
        read(kt, k + at * stride, stride, tokens - at, dim, unit, 1.0f, (float*)nullptr);
        __syncthreads();
        rows_times_rows(s, qt, kt, dim);
#pragma unroll
        for (int i = 0; i < PER; i++)
#pragma unroll
            for (int j = 0; j < PER; j++) {
                float e = at + x + 16 * j < sees[i] ? expf(s[i][j] - top[i]) * over[i] : 0.0f;
                p[(ty + 16 * i) * (SIDE + 1) + x + 16 * j] = e * (dp[i][j] - delta[i]);
            }
        __syncthreads();
        weigh_rows(dq, p, kt);
    }
    float slope = write_gradient(dq, qt, inverse, unit, factor, dqkv + ((u64)b * tokens + first) * stride + h * dim,
                                       stride, rows, dim);
    slope = block_sum(x == 0 ? slope : 0.0f, scratch);
    if (threadIdx.x == 0) slopes[(u64)blockIdx.y * gridDim.x + blockIdx.x] = slope;
}

// The gradients of keys and values.
template <typename T>
__device__ void backward_keys(const T* qkv, const T* g, const float* stats, const int* plan, const float* scale_mul,
                              const float* deltas, T* dqkv, int heads, int dim, int tokens, int unit) {
    constexpr int SIDE = Tile::SIDE, PER = Tile::PER, COLUMNS = Tile::COLUMNS;
    __shared__ Tile kt, vt, qt;
    __shared__ float p[SIDE * (SIDE + 1)], inverse[SIDE];
    int x = threadIdx.x & 15, ty = threadIdx.x >> 4;
    int b = blockIdx.y / heads, h = blockIdx.y % heads;
    int first = blockIdx.x * SIDE, rows = min(tokens - first, SIDE);
    u64 width = (u64)heads * dim, stride = 3 * width;
    const T *q = qkv + (u64)b * tokens * stride + h * dim, *k = q + width, *v = k + width;
    g += (u64)b * tokens * width + h * dim;
    const float *tops = stats + (u64)blockIdx.y * tokens, *overs = stats + (u64)(gridDim.y + blockIdx.y) * tokens;
    const float* delta = deltas + (u64)blockIdx.y * tokens;
    float factor = query_factor(scale_mul, h, unit, dim);
    read(kt, k + first * stride, stride, rows, dim, unit, 1.0f, inverse);
    read(vt, v + first * stride, stride, rows, dim, false, 1.0f, (float*)nullptr);
    float dk[PER][COLUMNS] = {}, dv[PER][COLUMNS] = {};
    for (int at = plan[tokens + first]; at < tokens; at += SIDE) {
        // Rows are keys, columns queries.
        float s[PER][PER], dp[PER][PER];
        __syncthreads();
        read(qt, q + at * stride, stride, tokens - at, dim, unit, factor, (float*)nullptr);
        __syncthreads();
        rows_times_rows(s, kt, qt, dim);
#pragma unroll
        for (int j = 0; j < PER; j++) {
            int query = at + x + 16 * j;
            bool there = query < tokens;
            int sees = there ? plan[query] : 0;
            float top = there ? tops[query] : 0.0f, over = there ? overs[query] : 0.0f;
#pragma unroll
            for (int i = 0; i < PER; i++) {
                s[i][j] = first + ty + 16 * i < sees ? expf(s[i][j] - top) * over : 0.0f;
                p[(ty + 16 * i) * (SIDE + 1) + x + 16 * j] = s[i][j];
            }
        }
        __syncthreads();
        read(qt, g + at * width, width, tokens - at, dim, false, 1.0f, (float*)nullptr);
        __syncthreads();
        rows_times_rows(dp, vt, qt, dim);
        weigh_rows(dv, p, qt);
        __syncthreads();
        read(qt, q + at * stride, stride, tokens - at, dim, unit, factor, (float*)nullptr);
#pragma unroll
        for (int j = 0; j < PER; j++) {
            int query = at + x + 16 * j;
            float d = query < tokens ? delta[query] : 0.0f;
#pragma unroll
            for (int i = 0; i < PER; i++)
                p[(ty + 16 * i) * (SIDE + 1) + x + 16 * j] = s[i][j] * (dp[i][j] - d);
        }
        __syncthreads();
        weigh_rows(dk, p, qt);
    }
    T* to = dqkv + ((u64)b * tokens + first) * stride + width + h * dim;
    write_gradient(dk, kt, inverse, unit, 1.0f, to, stride, rows, dim);
#pragma unroll
    for (int i = 0; i < PER; i++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int row = ty + 16 * i, column = x + 16 * c;
            if (row < rows && column < dim) to[width + row * stride + column] = from_f32<T>(dv[i][c]);
        }
}

// Appends the keys (divided by their norms with `unit`) and values of l tokens to caches [B, H, capacity, D] that hold
// `held` of them. A warp a token and head.
template <typename T>
__device__ void append(const T* qkv, T* keys, T* values, int heads, int dim, int tokens, int held, int capacity, int unit,
                       int total) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
    if (row >= total) return;
    int h = row % heads, token = row / heads % tokens, b = row / heads / tokens;
    u64 width = (u64)heads * dim;
    const T *k = qkv + ((u64)b * tokens + token) * 3 * width + width + h * dim, *v = k + width;
    u64 to = (((u64)b * heads + h) * capacity + held + token) * dim;
    float f = 1;
    if (unit) {
        float s = 0;
        for (int d = lane; d < dim; d += 32) s = fmaf(to_f32(k[d]), to_f32(k[d]), s);
        f = inverse_norm(warp_sum(s));
    }
    for (int d = lane; d < dim; d += 32) {
        keys[to + d] = from_f32<T>(to_f32(k[d]) * f);
        values[to + d] = from_f32<T>(to_f32(v[d]));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) plain_forward(
    const Element* q, const Element* k, const Element* v, Element* y, float* stats, const int* plan, const float* scale_mul,
    int heads, int dim, int queries, int keys, int unit_queries, int unit_keys, u64 q_batch, u64 q_token, u64 k_batch,
    u64 k_head, u64 k_token) {
    forward(q, k, v, y, stats, plan, scale_mul, heads, dim, queries, keys, unit_queries, unit_keys, q_batch, q_token,
                  k_batch, k_head, k_token);
}
extern "C" __global__ void __launch_bounds__(THREADS) plain_backward_queries(
    const Element* qkv, const Element* y, const Element* g, const float* stats, const int* plan, const float* scale_mul,
    Element* dqkv, float* deltas, float* slopes, int heads, int dim, int tokens, int unit) {
    backward_queries(qkv, y, g, stats, plan, scale_mul, dqkv, deltas, slopes, heads, dim, tokens, unit);
}
extern "C" __global__ void __launch_bounds__(THREADS) plain_backward_keys(
    const Element* qkv, const Element* g, const float* stats, const int* plan, const float* scale_mul, const float* deltas,
    Element* dqkv, int heads, int dim, int tokens, int unit) {
    backward_keys(qkv, g, stats, plan, scale_mul, deltas, dqkv, heads, dim, tokens, unit);
}
extern "C" __global__ void plain_append(const Element* qkv, Element* keys, Element* values, int heads, int dim, int tokens,
                                        int held, int capacity, int unit, int total) {
    append(qkv, keys, values, heads, dim, tokens, held, capacity, unit, total);
}
