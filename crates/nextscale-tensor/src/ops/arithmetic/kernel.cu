// Element by element: y = f(a, b), and weighted sums of single numbers.

// Multiplications and additions are kept apart, as the CPU rounds them.
__device__ __forceinline__ float map(int kind, float a, float b, float p, float q) {
    switch (kind) {
        case 0: return __fadd_rn(a, b);
        case 1: return __fsub_rn(a, b);
        case 2: return __fmul_rn(a, p);
        case 3: return __fadd_rn(__fsub_rn(b, a), a);
        case 4: return __fmul_rn(__fadd_rn(a, 1.0f), 0.5f);
        case 6: return a <= 0.0f ? 0.0f : a;
        case 7: return a > 0.0f ? b : 0.0f;
        case 8: return __fadd_rn(__fmul_rn(a, p), q);
        default: return a - a == 0.0f ? fminf(fmaxf(a, p), q) : __int_as_float(0x7fffffff);
    }
}

// `b` is null for functions of one operand. Eight elements a thread where the places allow it.
template <typename T>
__device__ __forceinline__ void map_all(const T* a, const T* b, T* y, int kind, float p, float q, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(a) && aligned16(b) && aligned16(y) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float u[8], v[8] = {};
        load8(a + 8 * i, u);
        if (b) load8(b + 8 * i, v);
        for (int j = 0; j < 8; j++) u[j] = map(kind, u[j], v[j], p, q);
        store8(y + 8 * i, u);
    }
    for (u64 i = 8 * full + at; i < n; i += step)
        y[i] = from_f32<T>(map(kind, to_f32(a[i]), b ? to_f32(b[i]) : 0.0f, p, q));
}

#define MAP(t, T) \
    extern "C" __global__ void map_##t(const T* a, const T* b, T* y, int kind, float p, float q, u64 n) { \
        map_all(a, b, y, kind, p, q, n); \
    }
MAP(f32, float)
MAP(bf16, bf16)
MAP(f16, f16)

// Up to eight terms of a sum in float64: carried over from the terms before (`more`), rounded for y as far as it has come.
extern "C" __global__ void weighted_sum(double* carry, float* y, const float* t0, const float* t1, const float* t2,
                                        const float* t3, const float* t4, const float* t5, const float* t6, const float* t7,
                                        float w0, float w1, float w2, float w3, float w4, float w5, float w6, float w7,
                                        int count, int more) {
    if (threadIdx.x != 0) return;
    const float* terms[8] = {t0, t1, t2, t3, t4, t5, t6, t7};
    const float weights[8] = {w0, w1, w2, w3, w4, w5, w6, w7};
    double sum = more ? *carry : 0.0;
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) sum += (double)*terms[i] * (double)weights[i];
    *carry = sum;
    *y = (float)sum;
}

// The gradients of up to eight terms, side by side.
extern "C" __global__ void weighted_gradients(const float* g, float* y, float w0, float w1, float w2, float w3, float w4,
                                              float w5, float w6, float w7, int count) {
    const float weights[8] = {w0, w1, w2, w3, w4, w5, w6, w7};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (threadIdx.x == i && i < count) y[i] = __fmul_rn(*g, weights[i]);
}
