// What every module of kernels begins with. No header of a toolkit is needed: half-precision types are kept as 16 bits
// and converted by instructions that every GPU from sm_80 on has.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float to_f32(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

template <typename T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
// Round to nearest, ties to even, as the framework's casts do.
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ f16 from_f32<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Vectors of eight elements: 16 bytes of a half type, 32 of float.

__device__ __forceinline__ bool aligned16(const void* p) { return ((u64)p & 15) == 0; }

struct alignas(16) Words4 { u32 w[4]; };

__device__ __forceinline__ void load8(const float* p, float (&y)[8]) {
    Words4 a = ((const Words4*)p)[0], b = ((const Words4*)p)[1];
    for (int j = 0; j < 4; j++) {
        y[j] = __uint_as_float(a.w[j]);
        y[4 + j] = __uint_as_float(b.w[j]);
    }
}
__device__ __forceinline__ void load8(const bf16* p, float (&y)[8]) {
    Words4 a = *(const Words4*)p;
    for (int j = 0; j < 4; j++) {
        y[2 * j] = __uint_as_float(a.w[j] << 16);
        y[2 * j + 1] = __uint_as_float(a.w[j] & 0xffff0000u);
    }
}
__device__ __forceinline__ void load8(const f16* p, float (&y)[8]) {
    Words4 a = *(const Words4*)p;
    for (int j = 0; j < 4; j++) {
        f16 lo, hi;
        lo.bits = (u16)(a.w[j] & 0xffffu);
        hi.bits = (u16)(a.w[j] >> 16);
        y[2 * j] = to_f32(lo);
        y[2 * j + 1] = to_f32(hi);
    }
}
// Two halves in one word, the first in the low bits.
template <typename T> __device__ __forceinline__ u32 pack2(float lo, float hi) {
    return (u32)from_f32<T>(lo).bits | (u32)from_f32<T>(hi).bits << 16;
}
__device__ __forceinline__ void store8(float* p, const float (&x)[8]) {
    Words4 a, b;
    for (int j = 0; j < 4; j++) {
        a.w[j] = __float_as_uint(x[j]);
        b.w[j] = __float_as_uint(x[4 + j]);
    }
    ((Words4*)p)[0] = a;
    ((Words4*)p)[1] = b;
}
template <typename T> __device__ __forceinline__ void store8(T* p, const float (&x)[8]) {
    Words4 a;
    for (int j = 0; j < 4; j++) a.w[j] = pack2<T>(x[2 * j], x[2 * j + 1]);
    *(Words4*)p = a;
}

// 1/√(variance + eps); not a number where the variance is none or infinite, or everything would become zero there.
__device__ __forceinline__ float inverse_deviation(float variance, float eps) {
    return 1.0f / sqrtf(variance + eps) + (variance - variance);
}

// Sums in a fixed order, the same result in every lane or thread.

__device__ __forceinline__ float warp_sum(float x) {
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
    return x;
}
// For blocks of whole warps; `scratch` holds 32 floats and may be used again after the next barrier of the caller.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

// The same in float64.
__device__ __forceinline__ double warp_sum64(double x) {
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}
__device__ __forceinline__ double block_sum64(double x, double* scratch) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = warp_sum64(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum64(lane < warps ? scratch[lane] : 0.0);
}

// Philox4x32-10, word for word as the CPU draws it: `tail` are words 1..3 of the counter.
struct Words { u32 w[4]; };
__device__ __forceinline__ Words philox(u32 block, u32 t0, u32 t1, u32 t2, u32 k0, u32 k1) {
    u32 c0 = block, c1 = t0, c2 = t1, c3 = t2;
    for (int r = 0; r < 10; r++) {
        u64 a = (u64)0xD2511F53u * c0, b = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words y;
    y.w[0] = c0; y.w[1] = c1; y.w[2] = c2; y.w[3] = c3;
    return y;
}
// The middle of one of 2^23 equal cells of (0, 1).
__device__ __forceinline__ float open_unit(u32 w) { return ((float)(w >> 9) + 0.5f) * (1.0f / 8388608.0f); }
