// Filling and converting, element by element.

template <typename T>
__device__ void fill(T* y, float value, u64 n) {
    T v = from_f32<T>(value);
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) y[i] = v;
}

extern "C" __global__ void fill_f32(float* y, float value, u64 n) { fill(y, value, n); }
extern "C" __global__ void fill_bf16(bf16* y, float value, u64 n) { fill(y, value, n); }
extern "C" __global__ void fill_f16(f16* y, float value, u64 n) { fill(y, value, n); }

template <typename A, typename B>
__device__ void convert(const A* x, B* y, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x)
        y[i] = from_f32<B>(to_f32(x[i]));
}

extern "C" __global__ void convert_f32_bf16(const float* x, bf16* y, u64 n) { convert(x, y, n); }
extern "C" __global__ void convert_f32_f16(const float* x, f16* y, u64 n) { convert(x, y, n); }
extern "C" __global__ void convert_bf16_f32(const bf16* x, float* y, u64 n) { convert(x, y, n); }
extern "C" __global__ void convert_f16_f32(const f16* x, float* y, u64 n) { convert(x, y, n); }
