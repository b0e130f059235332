// Of pixels with `all` channels the `c` from `first` on. A thread moves one element.
#define CHANNELS(t, T) \
    extern "C" __global__ void channels_##t(const T* y, T* x, int all, int first, int c, u64 n) { \
        for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) { \
            u64 pixel = i / c; \
            x[i] = y[pixel * all + first + (i - pixel * c)]; \
        } \
    }
CHANNELS(f32, float)
CHANNELS(bf16, bf16)
CHANNELS(f16, f16)
