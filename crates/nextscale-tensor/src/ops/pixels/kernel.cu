// Between bytes and floats.

// v = u/255, then v + v − 1, each step rounded.
__device__ __forceinline__ float level(u32 u) {
    float v = __fdiv_rn((float)u, 255.0f);
    return __fsub_rn(__fadd_rn(v, v), 1.0f);
}

template <typename T>
__device__ __forceinline__ void floats(const unsigned char* p, T* y, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    // Both begin a buffer: eight elements a thread.
    for (u64 i = at; i < n / 8; i += step) {
        u64 bytes = ((const u64*)p)[i];
        float v[8];
        for (int j = 0; j < 8; j++) v[j] = level((u32)(bytes >> 8 * j) & 255u);
        store8(y + 8 * i, v);
    }
    for (u64 i = n / 8 * 8 + at; i < n; i += step) y[i] = from_f32<T>(level(p[i]));
}

// Rounded to nearest, ties to even; not a number becomes 0, and is counted apart.
__device__ __forceinline__ u32 pixel(float x) { return (u32)rintf(__fmul_rn(fminf(fmaxf(x, 0.0f), 1.0f), 255.0f)); }

template <typename T>
__device__ __forceinline__ void bytes(const T* x, unsigned char* p, u64* bad, u64 n) {
    u32 mine = 0;
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(x) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float v[8];
        load8(x + 8 * i, v);
        u64 word = 0;
        for (int j = 0; j < 8; j++) {
            word |= (u64)pixel(v[j]) << 8 * j;
            mine += v[j] - v[j] == 0.0f ? 0u : 1u;
        }
        ((u64*)p)[i] = word;
    }
    for (u64 i = 8 * full + at; i < n; i += step) {
        float v = to_f32(x[i]);
        p[i] = (unsigned char)pixel(v);
        mine += v - v == 0.0f ? 0u : 1u;
    }
    // Integers: the sum does not depend on the order.
    mine = __reduce_add_sync(0xffffffffu, mine);
    if (mine && (threadIdx.x & 31) == 0) atomicAdd((unsigned long long*)bad, (unsigned long long)mine);
}

#define PIXELS(t, T) \
    extern "C" __global__ void from_pixels_##t(const unsigned char* p, T* y, u64 n) { floats(p, y, n); } \
    extern "C" __global__ void to_pixels_##t(const T* x, unsigned char* p, u64* bad, u64 n) { bytes(x, p, bad, n); }
PIXELS(f32, float)
PIXELS(bf16, bf16)
PIXELS(f16, f16)
