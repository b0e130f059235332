// Zeroes elements by a mask that is drawn from their positions, which begin at `from`. Four words come from one call of the generator.

// Which of the eight elements from position p on stay, a bit each.
__device__ __forceinline__ u32 staying(u64 p, float rate, Words4 tail, u32 k0, u32 k1) {
    u32 bits = 0;
    if (p % 4 == 0) {
        for (int j = 0; j < 2; j++) {
            Words w = philox((u32)(p / 4 + j), tail.w[0], tail.w[1], tail.w[2], k0, k1);
            for (int i = 0; i < 4; i++) bits |= (u32)(open_unit(w.w[i]) >= rate) << (4 * j + i);
        }
    } else {
        u32 at = (u32)(p % 4);
        for (u32 j = 0; j < 3; j++) {
            Words w = philox((u32)(p / 4 + j), tail.w[0], tail.w[1], tail.w[2], k0, k1);
            for (u32 i = 0; i < 4; i++) bits |= (u32)(open_unit(w.w[i]) >= rate) << (4 * j + i);
        }
        bits >>= at;
    }
    return bits;
}

template <typename T>
__device__ __forceinline__ void drop(const T* x, T* y, float p, float scale, Words4 tail, u32 k0, u32 k1, u64 from, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    bool wide = aligned16(x) && aligned16(y);
    for (u64 i = at; 8 * i < n; i += step) {
        u32 stays = staying(from + 8 * i, p, tail, k0, k1);
        float v[8];
        if (wide && 8 * i + 8 <= n) {
            load8(x + 8 * i, v);
            for (int j = 0; j < 8; j++) v[j] = stays >> j & 1 ? v[j] * scale : 0.0f;
            store8(y + 8 * i, v);
        } else {
            for (int j = 0; j < 8; j++)
                if (8 * i + j < n) y[8 * i + j] = from_f32<T>(stays >> j & 1 ? to_f32(x[8 * i + j]) * scale : 0.0f);
        }
    }
}

#define DROP(t, T) \
    extern "C" __global__ void drop_##t(const T* x, T* y, float p, float scale, int t0, int t1, int t2, int k0, int k1, u64 from, u64 n) { \
        Words4 tail = {{(u32)t0, (u32)t1, (u32)t2, 0}}; \
        drop(x, y, p, scale, tail, (u32)k0, (u32)k1, from, n); \
    }
DROP(f32, float)
DROP(bf16, bf16)
DROP(f16, f16)
