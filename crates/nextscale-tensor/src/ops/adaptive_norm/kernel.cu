// The adaptive norm, alone and behind a gated residual, each way in one pass.
//
// A block takes a few rows of one sample, one after the other, and each of its threads eight columns of all of them: the
// modulation is read once a block and stays in registers, and so do the sums over tokens that are its gradient.

template <typename T>
__device__ __forceinline__ void load_some(const T* p, int count, bool whole, float (&y)[8]) {
    if (whole) {
        if (count) load8(p, y);
        return;
    }
    for (int j = 0; j < 8; j++) y[j] = j < count ? to_f32(p[j]) : 0.0f;
}
template <typename T>
__device__ __forceinline__ void store_some(T* p, int count, bool whole, const float (&y)[8]) {
    if (whole) {
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

// x [B, L, C] float; y = LN(x')·(1 + scale) + shift, where x' is x or, gated, x + keep·γ·h, which is written too. A table's
// row for sample b begins at b·*_row + *_at. stats are mean and 1/σ of every row.
template <typename H, typename Y, bool gated>
__device__ void norm(const float* x, const H* h, const float* gates, const float* table, const float* keep, float* sum, Y* y,
                     float* stats, int l, int c, int rows, int vectors, int gates_row, int gate_at, int table_row,
                     int scale_at, int shift_at, float eps) {
    __shared__ float scratch[2][2][32];
    Sums sums = {scratch, 0};
    int b = blockIdx.y, column = threadIdx.x * 8, count = min(max(c - column, 0), 8);
    bool whole = vectors != 0;
    float gamma[8] = {}, scale[8] = {}, shift[8] = {}, k = 1.0f, each = 1.0f / c;
    if (gated) {
        load_some(gates + (u64)b * gates_row + gate_at + column, count, whole, gamma);
        if (keep) k = keep[b];
    }
    load_some(table + (u64)b * table_row + scale_at + column, count, whole, scale);
    load_some(table + (u64)b * table_row + shift_at + column, count, whole, shift);
    int first = blockIdx.x * rows, last = min(first + rows, l);
    for (int t = first; t < last; t++) {
        u64 row = (u64)b * l + t, at = row * c + column;
        float v[8] = {}, g[8] = {};
        load_some(x + at, count, whole, v);
        if (gated) {
            load_some(h + at, count, whole, g);
            for (int j = 0; j < 8; j++) v[j] += (g[j] * gamma[j]) * k;
            store_some(sum + at, count, whole, v);
        }
        float s = 0.0f;
        for (int j = 0; j < 8; j++) s += v[j];
        float mean = sums.one(s) * each;
        s = 0.0f;
        for (int j = 0; j < 8; j++) s += j < count ? (v[j] - mean) * (v[j] - mean) : 0.0f;
        float rstd = 1.0f / sqrtf(sums.one(s) * each + eps);
        for (int j = 0; j < 8; j++) v[j] = ((v[j] - mean) * rstd) * (scale[j] + 1.0f) + shift[j];
        store_some(y + at, count, whole, v);
        if (threadIdx.x == 0) {
            stats[2 * row] = mean;
            stats[2 * row + 1] = rstd;
        }
    }
}

// Gradient: d holds that of x' where `has_d`, and that of x afterwards; gy is that of y, or null. Gated, also dh, and with
// `restore` x' is replaced by x = x' − keep·γ·h. partial [B, blocks, 3 or 2, C] gets the block's sums for γ (gated only),
// scale and shift.
template <typename H, typename Y, bool gated>
__device__ void norm_backward(float* x, const H* h, const float* gates, const float* table, const float* keep,
                              const float* stats, const Y* gy, float* d, H* dh, float* partial, int l, int c, int rows,
                              int vectors, int gates_row, int gate_at, int table_row, int scale_at, int has_d,
                              int restore) {
    __shared__ float scratch[2][2][32];
    Sums sums = {scratch, 0};
    int b = blockIdx.y, column = threadIdx.x * 8, count = min(max(c - column, 0), 8);
    bool whole = vectors != 0;
    float gamma[8] = {}, scale[8] = {}, k = 1.0f, each = 1.0f / c;
    float d_gamma[8] = {}, d_scale[8] = {}, d_shift[8] = {};
    if (gated) {
        load_some(gates + (u64)b * gates_row + gate_at + column, count, whole, gamma);
        if (keep) k = keep[b];
    }
    load_some(table + (u64)b * table_row + scale_at + column, count, whole, scale);
    int first = blockIdx.x * rows, last = min(first + rows, l);
    for (int t = first; t < last; t++) {
        u64 row = (u64)b * l + t, at = row * c + column;
        float v[8] = {}, g[8] = {}, dx[8] = {}, branch[8] = {};
        load_some(x + at, count, whole, v);
        if (gy) load_some(gy + at, count, whole, g);
        if (has_d) load_some(d + at, count, whole, dx);
        if (gated) load_some(h + at, count, whole, branch);
        if (gy) {
            float mean = stats[2 * row], rstd = stats[2 * row + 1], su = 0.0f, sux = 0.0f;
            float hat[8];
            for (int j = 0; j < 8; j++) {
                hat[j] = j < count ? (v[j] - mean) * rstd : 0.0f;
                d_scale[j] += g[j] * hat[j];
                d_shift[j] += g[j];
                g[j] *= scale[j] + 1.0f;
                su += g[j];
                sux += g[j] * hat[j];
            }
            Sums::Pair s = sums.both(su, sux);
            float mean_u = s.x * each, mean_ux = s.y * each;
            for (int j = 0; j < 8; j++) dx[j] += rstd * (g[j] - mean_u - hat[j] * mean_ux);
        }
        store_some(d + at, count, whole, dx);
        if (gated) {
            float through[8];
            for (int j = 0; j < 8; j++) {
                float dk = dx[j] * k;
                through[j] = dk * gamma[j];
                d_gamma[j] += dk * branch[j];
                v[j] -= (branch[j] * gamma[j]) * k;
            }
            store_some(dh + at, count, whole, through);
            if (restore) store_some(x + at, count, whole, v);
        }
    }
    constexpr int width = gated ? 3 : 2;
    float* mine = partial + ((u64)b * gridDim.x + blockIdx.x) * width * c + column;
    if (gated) {
        store_some(mine, count, whole, d_gamma);
        mine += c;
    }
    store_some(mine, count, whole, d_scale);
    store_some(mine + c, count, whole, d_shift);
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

#define NORM(name, Y) \
    extern "C" __global__ void __launch_bounds__(512) adaptive_norm_##name(const float* x, const float* table, Y* y, float* stats, int l, int c, \
                                                    int rows, int vectors, int table_row, int scale_at, int shift_at, \
                                                    float eps) { \
        norm<float, Y, false>(x, nullptr, nullptr, table, nullptr, nullptr, y, stats, l, c, rows, vectors, 0, 0, table_row, \
                              scale_at, shift_at, eps); \
    } \
    extern "C" __global__ void __launch_bounds__(512) adaptive_norm_backward_##name( \
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
    extern "C" __global__ void __launch_bounds__(512) gated_##name(const float* x, const H* h, const float* gates, const float* table, \
                                            const float* keep, float* sum, Y* y, float* stats, int l, int c, int rows, \
                                            int vectors, int gates_row, int gate_at, int table_row, int scale_at, \
                                            int shift_at, float eps) { \
        norm<H, Y, true>(x, h, gates, table, keep, sum, y, stats, l, c, rows, vectors, gates_row, gate_at, table_row, \
                         scale_at, shift_at, eps); \
    } \
    extern "C" __global__ void __launch_bounds__(512) gated_backward_##name( \
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
