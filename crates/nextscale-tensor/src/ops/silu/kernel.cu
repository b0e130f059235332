// x·σ(x) and its gradient.

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu_slope(float x) {
    float s = 1.0f / (1.0f + expf(-x));
    return s * (1.0f + x * (1.0f - s));
}

template <typename T>
__device__ void forward(const T* x, T* y, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(x) && aligned16(y) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float v[8];
        load8(x + 8 * i, v);
        for (int j = 0; j < 8; j++) v[j] = silu(v[j]);
        store8(y + 8 * i, v);
    }
    for (u64 i = 8 * full + at; i < n; i += step) y[i] = from_f32<T>(silu(to_f32(x[i])));
}

template <typename T>
__device__ void backward(const T* x, const T* g, T* dx, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(x) && aligned16(g) && aligned16(dx) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float v[8], d[8];
        load8(x + 8 * i, v);
        load8(g + 8 * i, d);
        for (int j = 0; j < 8; j++) d[j] *= silu_slope(v[j]);
        store8(dx + 8 * i, d);
    }
    for (u64 i = 8 * full + at; i < n; i += step) dx[i] = from_f32<T>(to_f32(g[i]) * silu_slope(to_f32(x[i])));
}

extern "C" __global__ void silu_f32(const float* x, float* y, u64 n) { forward(x, y, n); }
extern "C" __global__ void silu_bf16(const bf16* x, bf16* y, u64 n) { forward(x, y, n); }
extern "C" __global__ void silu_f16(const f16* x, f16* y, u64 n) { forward(x, y, n); }
extern "C" __global__ void silu_back_f32(const float* x, const float* g, float* dx, u64 n) { backward(x, g, dx, n); }
extern "C" __global__ void silu_back_bf16(const bf16* x, const bf16* g, bf16* dx, u64 n) { backward(x, g, dx, n); }
extern "C" __global__ void silu_back_f16(const f16* x, const f16* g, f16* dx, u64 n) { backward(x, g, dx, n); }
