// Mean squared (kind 0) and mean absolute (kind 1) difference in two stages, sums in a fixed order.

#define THREADS 256
// Elements of one block.
#define PART 8192

// Four elements from `at`, zeros past the end.
__device__ __forceinline__ void four(const float* p, bool aligned, u64 at, u64 n, float (&y)[4]) {
    if (aligned && at + 4 <= n) {
        Words4 w = *(const Words4*)(p + at);
        for (int j = 0; j < 4; j++) y[j] = __uint_as_float(w.w[j]);
    } else {
        for (int j = 0; j < 4; j++) y[j] = at + j < n ? p[at + j] : 0.0f;
    }
}

__device__ __forceinline__ double sum_of_block(double x, double* scratch) {
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
    __syncthreads();
    double sum = 0.0;
    for (int i = 0; i < THREADS / 32; i++) sum += scratch[i];
    return sum;
}

// The sums of the parts: 32 elements a thread in float32, what follows in float64.
extern "C" __global__ void __launch_bounds__(THREADS) loss_parts(const float* a, const float* b, double* parts, int kind, u64 n) {
    __shared__ double scratch[THREADS / 32];
    bool aligned_a = aligned16(a), aligned_b = aligned16(b);
    u64 first = blockIdx.x * (u64)PART + 4 * threadIdx.x;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PART / (4 * THREADS); i++) {
        float x[4], y[4];
        four(a, aligned_a, first + i * 4 * THREADS, n, x);
        four(b, aligned_b, first + i * 4 * THREADS, n, y);
        for (int j = 0; j < 4; j++) {
            float d = x[j] - y[j];
            sum += kind ? fabsf(d) : d * d;
        }
    }
    double total = sum_of_block((double)sum, scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(THREADS) loss_mean(const double* parts, float* y, int count, u64 n) {
    __shared__ double scratch[THREADS / 32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += parts[i];
    sum = sum_of_block(sum, scratch);
    if (threadIdx.x == 0) *y = (float)(sum / (double)n);
}

// ±slope·g/n; either gradient may be left out.
extern "C" __global__ void loss_slope(const float* a, const float* b, const float* g, float* da, float* db, int kind, u64 n) {
    float f = (float)((double)*g / (double)n);
    bool aligned = aligned16(a) && aligned16(b);
    u64 at = 4 * (blockIdx.x * (u64)blockDim.x + threadIdx.x), step = 4 * (u64)gridDim.x * blockDim.x;
    for (u64 i = at; i < n; i += step) {
        float x[4], y[4];
        four(a, aligned, i, n, x);
        four(b, aligned, i, n, y);
        for (int j = 0; j < 4; j++) {
            float d = x[j] - y[j];
            x[j] = (kind ? (d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : 0.0f) : 2.0f * d) * f;
        }
        if (i + 4 <= n) {
            Words4 up, down;
            for (int j = 0; j < 4; j++) {
                up.w[j] = __float_as_uint(x[j]);
                down.w[j] = __float_as_uint(-x[j]);
            }
            if (da) *(Words4*)(da + i) = up;
            if (db) *(Words4*)(db + i) = down;
        } else {
            for (int j = 0; i + j < n; j++) {
                if (da) da[i + j] = x[j];
                if (db) db[i + j] = -x[j];
            }
        }
    }
}
