// Cross entropy with label smoothing. A warp takes a row of V logits and reads it once, sixteen bytes a load.

template <typename T> struct Wide { enum { N = 8 }; };
template <> struct Wide<float> { enum { N = 4 }; };

__device__ __forceinline__ void load_wide(const float* p, float (&y)[4]) {
    Words4 a = *(const Words4*)p;
    for (int j = 0; j < 4; j++) y[j] = __uint_as_float(a.w[j]);
}
template <typename T> __device__ __forceinline__ void load_wide(const T* p, float (&y)[8]) { load8(p, y); }
__device__ __forceinline__ void store_wide(float* p, const float (&y)[4]) {
    Words4 a;
    for (int j = 0; j < 4; j++) a.w[j] = __float_as_uint(y[j]);
    *(Words4*)p = a;
}
template <typename T> __device__ __forceinline__ void store_wide(T* p, const float (&y)[8]) { store8(p, y); }

// Elements of a row that a warp takes at once: 32 a lane.
constexpr int STEP = 1024;
#define MINUS_INF __int_as_float(0xff800000)

// The running maximum with its first place, and the sum of exp(x − max), of what a lane has seen.
struct Running {
    float max, sum, total;
    int at;
    __device__ __forceinline__ void raise(float to, int where) {
        sum *= expf(max - to);
        max = to;
        at = where;
    }
    // Where all is −∞ so far, nothing has to be taken off.
    __device__ __forceinline__ float base() const { return max == MINUS_INF ? 0.0f : max; }
};

template <typename T>
__device__ __forceinline__ void forward(const T* x, const int* targets, float* lse_out, float* smoothed, float* plain,
                                        int* predicted, u64 rows, int v, float s) {
    constexpr int N = Wide<T>::N, G = 32 / N;
    int lane = threadIdx.x & 31;
    u64 row = blockIdx.x * (u64)(blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    const T* r = x + row * v;
    Running run = {MINUS_INF, 0.0f, 0.0f, 0};
    int done = 0;
    if (aligned16(r)) {
        for (; done + STEP <= v; done += STEP) {
            float y[G][N];
#pragma unroll
            for (int g = 0; g < G; g++) load_wide(r + done + (g * 32 + lane) * N, y[g]);
            float most = y[0][0];
#pragma unroll
            for (int j = 1; j < 32; j++) most = fmaxf(most, y[j / N][j % N]);
            if (most > run.max) {
                int where = 0;
#pragma unroll
                for (int j = 31; j >= 0; j--)
                    if (y[j / N][j % N] == most) where = (j / N) * 32 * N + j % N;
                run.raise(most, done + lane * N + where);
            }
            float base = run.base(), sum = 0.0f, total = 0.0f;
#pragma unroll
            for (int j = 0; j < 32; j++) {
                sum += expf(y[j / N][j % N] - base);
                total += y[j / N][j % N];
            }
            run.sum += sum;
            run.total += total;
        }
    }
    for (int i = done + lane; i < v; i += 32) {
        float y = to_f32(r[i]);
        if (y > run.max) run.raise(y, i);
        run.sum += expf(y - run.base());
        run.total += y;
    }
    float max = warp_max(run.max);
    // The first of equal maxima; a lane that saw none has place 0 only where all of them are −∞.
    int at = (int)__reduce_min_sync(0xffffffffu, run.max == max ? (u32)run.at : 0xffffffffu);
    float lse = max + logf(warp_sum(run.sum * expf(run.max - max)));
    float total = warp_sum(run.total);
    if (lane != 0) return;
    int t = targets[row];
    // No code: what comes out is no number rather than a wrong one.
    if ((u32)t >= (u32)v) lse = __int_as_float(0x7fc00000);
    float cost = lse - ((u32)t < (u32)v ? to_f32(r[t]) : 0.0f);
    lse_out[row] = lse;
    plain[row] = cost;
    smoothed[row] = s > 0.0f ? (1.0f - s) * cost + s * (lse - total / (float)v) : cost;
    predicted[row] = at;
}

// weight/B · g · (softmax(x) − (1 − s)·onehot − s/V), over the logits themselves.
template <typename T>
__device__ __forceinline__ void gradient(T* x, const int* targets, const float* lse, const float* weights, const float* g,
                                         u64 rows, int l, int b, int v, float s) {
    constexpr int N = Wide<T>::N, G = 16 / N;
    int lane = threadIdx.x & 31;
    u64 row = blockIdx.x * (u64)(blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    T* r = x + row * v;
    int t = targets[row];
    float w = weights[row % l] / (float)b * g[0], z = lse[row], even = s / (float)v, hit = w * (1.0f - s);
    int done = 0;
    if (aligned16(r)) {
        for (; done + STEP / 2 <= v; done += STEP / 2) {
            float y[G][N];
#pragma unroll
            for (int i = 0; i < G; i++) load_wide(r + done + (i * 32 + lane) * N, y[i]);
#pragma unroll
            for (int i = 0; i < G; i++) {
                int first = done + (i * 32 + lane) * N;
#pragma unroll
                for (int j = 0; j < N; j++) y[i][j] = w * (expf(y[i][j] - z) - even);
                if ((u32)(t - first) < (u32)N) {
#pragma unroll
                    for (int j = 0; j < N; j++)
                        if (first + j == t) y[i][j] -= hit;
                }
                store_wide(r + first, y[i]);
            }
        }
    }
    for (int i = done + lane; i < v; i += 32) {
        float y = w * (expf(to_f32(r[i]) - z) - even);
        r[i] = from_f32<T>(i == t ? y - hit : y);
    }
}

#define ROWS(name, T) \
    extern "C" __global__ void __launch_bounds__(128) cross_entropy_##name(const T* x, const int* targets, float* lse, float* smoothed, float* plain, int* predicted, u64 rows, int v, float s) { forward(x, targets, lse, smoothed, plain, predicted, rows, v, s); }
ROWS(f32, float)
ROWS(bf16, bf16)
ROWS(f16, f16)
#define SLOPES(name, T) \
    extern "C" __global__ void __launch_bounds__(128) cross_entropy_gradient_##name(T* x, const int* targets, const float* lse, const float* weights, const float* g, u64 rows, int l, int b, int v, float s) { gradient(x, targets, lse, weights, g, rows, l, b, v, s); }
SLOPES(f32, float)
SLOPES(bf16, bf16)
SLOPES(f16, f16)

// The weighted sum over all tokens divided by B, in float64: one block.
extern "C" __global__ void __launch_bounds__(1024) cross_entropy_loss(const float* smoothed, const float* weights, float* loss, u64 rows, int l, int b) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < rows; i += blockDim.x) sum += (double)smoothed[i] * (double)weights[(u32)i % (u32)l];
    sum = block_sum64(sum, scratch);
    if (threadIdx.x == 0) loss[0] = (float)(sum / b);
}
