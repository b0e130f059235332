// The adaptive norm, alone and behind a gated residual, each way in one pass.
//
// A block takes a few rows of one sample, one after the other, and each of its threads eight columns of all of them: the
// modulation is read once a block and stays in registers, and so do the sums over tokens that are its gradient.

// Eight columns as they lie in memory. With V, as words that are opened when they are needed, so that a row's loads are under
// way together; `count` is 0 or 8 then. Without, one by one.
template <typename T, bool V> struct Eight {
    Words4 w[sizeof(T) / 2];
    __device__ __forceinline__ void get(const T* p, int count) {
        for (int i = 0; i < (int)sizeof(T) / 2; i++) w[i] = count ? ((const Words4*)p)[i] : Words4{{0, 0, 0, 0}};
    }
    __device__ __forceinline__ void open(float (&y)[8]) const { load8((const T*)w, y); }
};
template <typename T> struct Eight<T, false> {
    float v[8];
    __device__ __forceinline__ void get(const T* p, int count) {
        for (int j = 0; j < 8; j++) v[j] = j < count ? to_f32(p[j]) : 0.0f;
    }
    __device__ __forceinline__ void open(float (&y)[8]) const {
        for (int j = 0; j < 8; j++) y[j] = v[j];
    }
};
template <bool V, typename T>
__device__ __forceinline__ void load(const T* p, int count, float (&y)[8]) {
    Eight<T, V> e;
    e.get(p, count);
    e.open(y);
}
template <bool V, typename T>
__device__ __forceinline__ void store(T* p, int count, const float (&y)[8]) {
    if (V) {
        if (count) store8(p, y);
        return;
    }
    for (int j = 0; j < 8; j++)
        if (j < count) p[j] = from_f32<T>(y[j]);
}

// Sums of the block in a fixed order, the same in every thread, at one barrier a call: two scratch rows take turns, so
// that a barrier always lies between reading one and writing it again.
struct Sums {
    float (*scratch)[2][32];
    int turn;
    __device__ __forceinline__ float one(float a) {
        float b = 0.0f;
        return both(a, b).x;
    }
    struct Pair { float x, y; };
    __device__ __forceinline__ Pair both(float a, float b) {
        int warps = blockDim.x >> 5, warp = threadIdx.x >> 5;
        a = warp_sum(a);
        b = warp_sum(b);
        if ((threadIdx.x & 31) == 0) {
            scratch[turn][0][warp] = a;
            scratch[turn][1][warp] = b;
        }
        __syncthreads();
        Pair sum = {0.0f, 0.0f};
        for (int w = 0; w < warps; w++) {
            sum.x += scratch[turn][0][w];
            sum.y += scratch[turn][1][w];
        }
        turn ^= 1;
        return sum;
    }
};

// What a block works on.
struct Part {
    int l, c, rows;
    int column, count;
    __device__ Part(int l, int c, int rows) : l(l), c(c), rows(rows) {
        column = threadIdx.x * 8;
        count = min(max(c - column, 0), 8);
    }
    __device__ int first() const { return blockIdx.x * rows; }
    __device__ int last() const { return min(first() + rows, l); }
    __device__ u64 row(int t) const { return (u64)blockIdx.y * l + t; }
    __device__ u64 at(int t) const { return row(t) * c + column; }
};

// x [B, L, C] float; y = LN(x')·(1 + scale) + shift, where x' is x or, gated, x + keep·γ·h, which is written too. A table's
// row for sample b begins at b·*_row + *_at. stats are mean and 1/σ of every row. The next row is fetched while one is
// worked on.
template <typename H, typename Y, bool gated, bool V>
__device__ void norm_part(const float* x, const H* h, const float* gates, const float* table, const float* keep, float* sum,
                          Y* y, float* stats, Part p, int gates_row, int gate_at, int table_row, int scale_at,
                          int shift_at, float eps) {
    __shared__ float scratch[2][2][32];
    Sums sums = {scratch, 0};
    int b = blockIdx.y;
    float gamma[8] = {}, scale[8], shift[8], k = 1.0f, each = 1.0f / p.c;
    if (gated) {
        load<V>(gates + (u64)b * gates_row + gate_at + p.column, p.count, gamma);
        if (keep) k = keep[b];
    }
    load<V>(table + (u64)b * table_row + scale_at + p.column, p.count, scale);
    load<V>(table + (u64)b * table_row + shift_at + p.column, p.count, shift);
    Eight<float, V> next_x;
    Eight<H, V> next_h;
    next_x.get(x + p.at(p.first()), p.count);
    if (gated) next_h.get(h + p.at(p.first()), p.count);
    for (int t = p.first(); t < p.last(); t++) {
        float v[8], g[8];
        next_x.open(v);
        if (gated) next_h.open(g);
        if (t + 1 < p.last()) {
            next_x.get(x + p.at(t + 1), p.count);
            if (gated) next_h.get(h + p.at(t + 1), p.count);
        }
        if (gated) {
            for (int j = 0; j < 8; j++) v[j] += (g[j] * gamma[j]) * k;
            store<V>(sum + p.at(t), p.count, v);
        }
        float s = 0.0f;
        for (int j = 0; j < 8; j++) s += v[j];
        float mean = sums.one(s) * each;
        s = 0.0f;
        for (int j = 0; j < 8; j++) s += j < p.count ? (v[j] - mean) * (v[j] - mean) : 0.0f;
        float rstd = inverse_deviation(sums.one(s) * each, eps);
        for (int j = 0; j < 8; j++) v[j] = ((v[j] - mean) * rstd) * (scale[j] + 1.0f) + shift[j];
        store<V>(y + p.at(t), p.count, v);
        if (threadIdx.x == 0) {
            stats[2 * p.row(t)] = mean;
            stats[2 * p.row(t) + 1] = rstd;
        }
    }
}
template <typename H, typename Y, bool gated>
__device__ __forceinline__ void norm(const float* x, const H* h, const float* gates, const float* table, const float* keep,
                                     float* sum, Y* y, float* stats, int l, int c, int rows, int vectors, int gates_row,
                                     int gate_at, int table_row, int scale_at, int shift_at, float eps) {
    Part p(l, c, rows);
    if (vectors)
        norm_part<H, Y, gated, true>(x, h, gates, table, keep, sum, y, stats, p, gates_row, gate_at, table_row, scale_at,
                                     shift_at, eps);
    else
        norm_part<H, Y, gated, false>(x, h, gates, table, keep, sum, y, stats, p, gates_row, gate_at, table_row, scale_at,
                                      shift_at, eps);
}

// Gradient: d holds that of x' where `has_d`, and that of x afterwards; gy is that of y, or null. Gated, also dh, and with
// `restore` x' is replaced by x = x' − keep·γ·h. partial [B, blocks, 3 or 2, C] gets the block's sums for γ (gated only),
// scale and shift.
template <typename H, typename Y, bool gated, bool V>
__device__ void back_part(float* x, const H* h, const float* gates, const float* table, const float* keep,
                          const float* stats, const Y* gy, float* d, H* dh, float* partial, Part p, int gates_row,
                          int gate_at, int table_row, int scale_at, int has_d, int restore) {
    __shared__ float scratch[2][2][32];
    Sums sums = {scratch, 0};
    int b = blockIdx.y;
    float gamma[8] = {}, scale[8], k = 1.0f, each = 1.0f / p.c;
    float d_gamma[8] = {}, d_scale[8] = {}, d_shift[8] = {};
    if (gated) {
        load<V>(gates + (u64)b * gates_row + gate_at + p.column, p.count, gamma);
        if (keep) k = keep[b];
    }
    load<V>(table + (u64)b * table_row + scale_at + p.column, p.count, scale);
    Eight<float, V> next_x, next_d;
    Eight<H, V> next_h;
    Eight<Y, V> next_g;
    float next_mean, next_rstd;
    auto fetch = [&](int t) {
        next_x.get(x + p.at(t), p.count);
        next_d.get(d + p.at(t), has_d ? p.count : 0);
        if (gated) next_h.get(h + p.at(t), p.count);
        next_g.get(gy + p.at(t), gy ? p.count : 0);
        next_mean = stats[2 * p.row(t)];
        next_rstd = stats[2 * p.row(t) + 1];
    };
    fetch(p.first());
    for (int t = p.first(); t < p.last(); t++) {
        float v[8], g[8], dx[8], branch[8] = {}, mean = next_mean, rstd = next_rstd;
        next_x.open(v);
        next_d.open(dx);
        next_g.open(g);
        if (gated) next_h.open(branch);
        if (t + 1 < p.last()) fetch(t + 1);
        // Without a gradient of y all of this adds zeros.
        float su = 0.0f, sux = 0.0f;
        for (int j = 0; j < 8; j++) {
            float hat = (v[j] - mean) * rstd;
            d_scale[j] += g[j] * hat;
            d_shift[j] += g[j];
            g[j] *= scale[j] + 1.0f;
            su += g[j];
            sux += g[j] * hat;
        }
        Sums::Pair s = sums.both(su, sux);
        float mean_u = s.x * each, mean_ux = s.y * each;
        for (int j = 0; j < 8; j++) dx[j] += rstd * (g[j] - mean_u - ((v[j] - mean) * rstd) * mean_ux);
        store<V>(d + p.at(t), p.count, dx);
        if (gated) {
            for (int j = 0; j < 8; j++) {
                float dk = dx[j] * k;
                g[j] = dk * gamma[j];
                d_gamma[j] += dk * branch[j];
                v[j] -= (branch[j] * gamma[j]) * k;
            }
            store<V>(dh + p.at(t), p.count, g);
            if (restore) store<V>(x + p.at(t), p.count, v);
        }
    }
    constexpr int width = gated ? 3 : 2;
    float* mine = partial + ((u64)b * gridDim.x + blockIdx.x) * width * p.c + p.column;
    if (gated) {
        store<V>(mine, p.count, d_gamma);
        mine += p.c;
    }
    store<V>(mine, p.count, d_scale);
    store<V>(mine + p.c, p.count, d_shift);
}
template <typename H, typename Y, bool gated>
__device__ __forceinline__ void norm_backward(float* x, const H* h, const float* gates, const float* table,
                                              const float* keep, const float* stats, const Y* gy, float* d, H* dh,
                                              float* partial, int l, int c, int rows, int vectors, int gates_row,
                                              int gate_at, int table_row, int scale_at, int has_d, int restore) {
    Part p(l, c, rows);
    if (vectors)
        back_part<H, Y, gated, true>(x, h, gates, table, keep, stats, gy, d, dh, partial, p, gates_row, gate_at, table_row,
                                     scale_at, has_d, restore);
    else
        back_part<H, Y, gated, false>(x, h, gates, table, keep, stats, gy, d, dh, partial, p, gates_row, gate_at, table_row,
                                      scale_at, has_d, restore);
}

// Adds the blocks' sums in order to the rows of the tables' gradients, which may be null. A thread has one column of one
// sample, for tables that are the same tensor.
extern "C" __global__ void norm_sums(const float* partial, float* gates, float* table, int blocks, int c, int width,
                                     int gates_row, int gate_at, int table_row, int scale_at, int shift_at) {
    int b = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= c) return;
    const float* p = partial + (u64)b * blocks * width * c + column;
    float sum[3] = {};
    for (int i = 0; i < blocks; i++, p += (u64)width * c) {
        if (width == 3) sum[0] += p[0];
        sum[1] += p[(u64)(width - 2) * c];
        sum[2] += p[(u64)(width - 1) * c];
    }
    if (gates) gates[(u64)b * gates_row + gate_at + column] += sum[0];
    if (table) {
        table[(u64)b * table_row + scale_at + column] += sum[1];
        table[(u64)b * table_row + shift_at + column] += sum[2];
    }
}

// Blocks of up to 512 threads, so that each may have 128 registers.
#define SIZE __launch_bounds__(512)

#define NORM(name, Y) \
    extern "C" __global__ void SIZE adaptive_norm_##name( \
        const float* x, const float* table, Y* y, float* stats, int l, int c, int rows, int vectors, int table_row, \
        int scale_at, int shift_at, float eps) { \
        norm<float, Y, false>(x, nullptr, nullptr, table, nullptr, nullptr, y, stats, l, c, rows, vectors, 0, 0, table_row, \
                              scale_at, shift_at, eps); \
    } \
    extern "C" __global__ void SIZE adaptive_norm_backward_##name( \
        float* x, const float* table, const float* stats, const Y* gy, float* d, float* partial, int l, int c, int rows, \
        int vectors, int table_row, int scale_at) { \
        norm_backward<float, Y, false>(x, nullptr, nullptr, table, nullptr, stats, gy, d, nullptr, partial, l, c, rows, \
                                       vectors, 0, 0, table_row, scale_at, 0, 0); \
    }
NORM(f32, float)
NORM(bf16, bf16)
NORM(f16, f16)

// The name has h's type, then y's.
#define GATED(name, H, Y) \
    extern "C" __global__ void SIZE gated_##name( \
        const float* x, const H* h, const float* gates, const float* table, const float* keep, float* sum, Y* y, \
        float* stats, int l, int c, int rows, int vectors, int gates_row, int gate_at, int table_row, int scale_at, \
        int shift_at, float eps) { \
        norm<H, Y, true>(x, h, gates, table, keep, sum, y, stats, l, c, rows, vectors, gates_row, gate_at, table_row, \
                         scale_at, shift_at, eps); \
    } \
    extern "C" __global__ void SIZE gated_backward_##name( \
        float* x, const H* h, const float* gates, const float* table, const float* keep, const float* stats, const Y* gy, \
        float* d, H* dh, float* partial, int l, int c, int rows, int vectors, int gates_row, int gate_at, int table_row, \
        int scale_at, int has_d, int restore) { \
        norm_backward<H, Y, true>(x, h, gates, table, keep, stats, gy, d, dh, partial, l, c, rows, vectors, gates_row, \
                                  gate_at, table_row, scale_at, has_d, restore); \
    }
GATED(f32_f32, float, float)
GATED(bf16_bf16, bf16, bf16)
GATED(f16_f16, f16, f16)
GATED(bf16_f32, bf16, float)
GATED(f16_f32, f16, float)
