// Filling, converting and adding, element by element.

template <typename T>
__device__ void fill(T* y, float value, u64 n) {
    T v = from_f32<T>(value);
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) y[i] = v;
}

extern "C" __global__ void fill_f32(float* y, float value, u64 n) { fill(y, value, n); }
extern "C" __global__ void fill_bf16(bf16* y, float value, u64 n) { fill(y, value, n); }
extern "C" __global__ void fill_f16(f16* y, float value, u64 n) { fill(y, value, n); }

// Eight elements a thread where both places allow it; the rest one by one.
template <typename A, typename B, typename F>
__device__ __forceinline__ void eight_by_eight(const A* x, B* y, u64 n, F each) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(x) && aligned16(y) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float a[8], b[8];
        load8(x + 8 * i, a);
        each(a, b, y + 8 * i);
    }
    for (u64 i = 8 * full + at; i < n; i += step) each(x + i, y + i);
}

template <typename A, typename B>
struct Convert {
    __device__ void operator()(const float (&a)[8], float (&)[8], B* y) const { store8(y, a); }
    __device__ void operator()(const A* x, B* y) const { *y = from_f32<B>(to_f32(*x)); }
};

template <typename A, typename B>
struct Add {
    __device__ void operator()(const float (&a)[8], float (&b)[8], B* y) const {
        load8(y, b);
        for (int j = 0; j < 8; j++) b[j] += a[j];
        store8(y, b);
    }
    __device__ void operator()(const A* x, B* y) const { *y = from_f32<B>(to_f32(*y) + to_f32(*x)); }
};

#define CONVERT(a, A, b, B) \
    extern "C" __global__ void convert_##a##_##b(const A* x, B* y, u64 n) { eight_by_eight(x, y, n, Convert<A, B>()); }
CONVERT(f32, float, bf16, bf16)
CONVERT(f32, float, f16, f16)
CONVERT(bf16, bf16, f32, float)
CONVERT(f16, f16, f32, float)
CONVERT(bf16, bf16, f16, f16)
CONVERT(f16, f16, bf16, bf16)

// y += x; the name has y's type first.
#define ADD(b, B, a, A) \
    extern "C" __global__ void add_##b##_##a(B* y, const A* x, u64 n) { eight_by_eight(x, y, n, Add<A, B>()); }
ADD(f32, float, f32, float)
ADD(f32, float, bf16, bf16)
ADD(f32, float, f16, f16)
ADD(bf16, bf16, bf16, bf16)
ADD(f16, f16, f16, f16)
ADD(bf16, bf16, f32, float)
ADD(f16, f16, f32, float)
