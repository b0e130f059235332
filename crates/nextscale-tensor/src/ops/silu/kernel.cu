// SiLU and its gradient, element by element.

template <typename T>
__device__ void silu(const T* x, T* y, u64 n) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += step) {
        float v = to_f32(x[i]);
        y[i] = from_f32<T>(v / (1.0f + expf(-v)));
    }
}

template <typename T>
__device__ void silu_backward(const T* x, const T* g, T* dx, u64 n) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += step) {
        float v = to_f32(x[i]), s = 1.0f / (1.0f + expf(-v));
        dx[i] = from_f32<T>(to_f32(g[i]) * s * (1.0f + v * (1.0f - s)));
    }
}

#define FOR(name, T) \
    extern "C" __global__ void silu_##name(const T* x, T* y, u64 n) { silu(x, y, n); } \
    extern "C" __global__ void silu_backward_##name(const T* x, const T* g, T* dx, u64 n) { silu_backward(x, g, dx, n); }
FOR(f32, float)
FOR(bf16, bf16)
FOR(f16, f16)
