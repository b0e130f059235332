// Distance of maps [B, pixels, c] whose pixels are scaled to length one, in two stages, sums in a fixed order. A warp has a pixel.

#define THREADS 256
#define WARPS (THREADS / 32)
// Pixels of one block in the first stage.
#define PART 64

template <typename T> __device__ __forceinline__ float length_of(const T* x, int c) {
    float sum = 0.0f;
    for (int i = threadIdx.x & 31; i < c; i += 32) {
        float v = to_f32(x[i]);
        sum = fmaf(v, v, sum);
    }
    return sqrtf(warp_sum(sum));
}

template <typename T>
__device__ void parts_of(const T* a, const T* b, const float* w, double* parts, int count, int pixels, int c, float eps) {
    __shared__ double scratch[32];
    u64 image = blockIdx.x / count;
    int part = (int)(blockIdx.x - image * count), first = part * PART, end = min(first + PART, pixels);
    double sum = 0.0;
    for (int p = first + (threadIdx.x >> 5); p < end; p += WARPS) {
        u64 at = (image * pixels + p) * (u64)c;
        const T *x = a + at, *y = b + at;
        float i = length_of(x, c) + eps, j = length_of(y, c) + eps, of_pixel = 0.0f;
        for (int k = threadIdx.x & 31; k < c; k += 32) {
            float d = to_f32(x[k]) / i - to_f32(y[k]) / j;
            of_pixel = fmaf(w[k] * d, d, of_pixel);
        }
        sum += (double)of_pixel;
    }
    sum = block_sum64(sum, scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

#define PARTS(name, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) unit_parts_##name(const T* a, const T* b, const float* w,      \
    double* parts, int count, int pixels, int c, float eps) { parts_of(a, b, w, parts, count, pixels, c, eps); }
PARTS(f32, float)
PARTS(bf16, bf16)
PARTS(f16, f16)

extern "C" __global__ void __launch_bounds__(THREADS) unit_mean(const double* parts, float* y, int count, int pixels) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += parts[blockIdx.x * (u64)count + i];
    sum = block_sum64(sum, scratch);
    if (threadIdx.x == 0) y[blockIdx.x] = (float)(sum / (double)pixels);
}

// One side's gradient at a pixel: x is its own side, of length `norm`, y the other, of length j with eps.
template <typename T>
__device__ __forceinline__ void back_of(const T* x, const T* y, const float* w, T* dx, float norm, float j, float f, int c,
                                        float eps) {
    int lane = threadIdx.x & 31;
    float i = norm + eps, along = 0.0f;
    for (int k = lane; k < c; k += 32) {
        float v = to_f32(x[k]);
        along = fmaf(f * w[k] * (v / i - to_f32(y[k]) / j), v, along);
    }
    // Divided twice, since the square may have no float32.
    float back = warp_sum(along) / norm / i;
    for (int k = lane; k < c; k += 32) {
        float v = to_f32(x[k]);
        float d = (f * w[k] * (v / i - to_f32(y[k]) / j) - back * v) / i;
        dx[k] = from_f32<T>(norm == 0.0f ? 0.0f : d);
    }
}

// The gradients of both sides; either may be left out.
template <typename T>
__device__ void back(const T* a, const T* b, const float* w, const float* g, T* da, T* db, int pixels, int c, u64 n, float eps) {
    u64 p = blockIdx.x * (u64)WARPS + (threadIdx.x >> 5);
    if (p >= n) return;
    const T *x = a + p * c, *y = b + p * c;
    float i = length_of(x, c), j = length_of(y, c), f = 2.0f * g[p / pixels] / (float)pixels;
    if (da) back_of(x, y, w, da + p * c, i, j + eps, f, c, eps);
    if (db) back_of(y, x, w, db + p * c, j, i + eps, f, c, eps);
}

#define BACK(name, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) unit_back_##name(const T* a, const T* b, const float* w,       \
    const float* g, T* da, T* db, int pixels, int c, u64 n, float eps) { back(a, b, w, g, da, db, pixels, c, n, eps); }
BACK(f32, float)
BACK(bf16, bf16)
BACK(f16, f16)
