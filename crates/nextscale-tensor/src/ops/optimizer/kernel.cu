// The optimizer's passes: the gradients' sum of squares, what a step is to do, AdamW.

// What a run carries from step to step; the CPU writes and reads it word by word.
struct State {
    double scale, growth_factor, backoff_factor;
    u64 growth_interval, growth_tracker, updates, scaled;
};
// What AdamW needs of the decision.
struct Decision {
    float grad_scale, size, root;
    int skip;
};

__device__ __forceinline__ double number(u64 bits) { return __longlong_as_double((long long)bits); }

// The block's sum of doubles in a fixed order, in thread 0.
__device__ double block_sum_f64(double x) {
    __shared__ double sums[32];
    for (int d = 16; d > 0; d >>= 1) x += __shfl_down_sync(0xffffffffu, x, d);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = x;
    __syncthreads();
    if (threadIdx.x >= 32) return 0.0;
    x = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0;
    for (int d = 16; d > 0; d >>= 1) x += __shfl_down_sync(0xffffffffu, x, d);
    return x;
}

// Sums of squares of 16384 elements a block. Eight squares are added in float32, the rest in float64. With `factors` only those
// count whose factor (see `update`) is a number without a sign.
extern "C" __global__ void __launch_bounds__(256) sum_squares(const float* g, double* partial, const float* factors,
                                                              u64 n) {
    constexpr u64 PART = 16384;
    u64 from = blockIdx.x * PART;
    double sum = 0.0;
#pragma unroll 4
    for (int i = 0; i < 8; i++) {
        u64 at = from + (i * 256 + threadIdx.x) * 8;
        float a[8];
        if (factors && (at >= n || !(__float_as_uint(factors[at / 16]) <= 0x7f800000u))) continue;
        if (at + 8 <= n) {
            load8(g + at, a);
        } else {
            for (int j = 0; j < 8; j++) a[j] = at + j < n ? g[at + j] : 0.0f;
        }
        float s = 0.0f;
        for (int j = 0; j < 8; j++) s += a[j] * a[j];
        sum += s;
    }
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: all sums of squares, in order, in thread 0.
__device__ double total(const double* partial, int count) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
    return block_sum_f64(sum);
}

// The same as a number of its own, to be added to those of other processes.
extern "C" __global__ void add_up(const double* partial, double* sum, int count) {
    double all = total(partial, count);
    if (threadIdx.x == 0) *sum = all;
}

extern "C" __global__ void grad_norm(const double* partial, double* norm, int count) {
    double sum = total(partial, count);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}

// Norm, overflow, clipping, bias corrections, loss scale and the count of updates; `found` gets norm, scale, skipped, updates.
extern "C" __global__ void decide(const double* partial, State* state, Decision* decision, double* found, int count,
                                  int clips, u64 clip, u64 lr, u64 beta1, u64 beta2) {
    double sum = total(partial, count);
    if (threadIdx.x != 0) return;
    State s = *state;
    double scale = s.scaled ? s.scale : 1.0, norm = sqrt(sum) / scale;
    // The difference of anything but a finite number with itself is not a number.
    bool skip = s.scaled && !(norm - norm == 0.0);
    Decision d = {0.0f, 0.0f, 1.0f, skip};
    if (!skip) {
        // fmin leaves out what is not a number, as the CPU's minimum does.
        double factor = clips ? fmin(number(clip) / (norm + 1e-6), 1.0) : 1.0;
        s.updates++;
        d.grad_scale = (float)(factor / scale);
        d.size = (float)(number(lr) / (1.0 - pow(number(beta1), (double)s.updates)));
        d.root = (float)sqrt(1.0 - pow(number(beta2), (double)s.updates));
    }
    if (s.scaled) {
        if (s.scale > 32768.0) {
            s.scale = 32768.0;
        } else if (skip) {
            s.scale *= s.backoff_factor;
            s.growth_tracker = 0;
        } else if (++s.growth_tracker >= s.growth_interval) {
            s.scale *= s.growth_factor;
            s.growth_tracker = 0;
        }
    }
    *state = s;
    *decision = d;
    found[0] = norm;
    found[1] = s.scaled ? s.scale : 1.0;
    found[2] = skip;
    found[3] = (double)s.updates;
}

// The loss scale over the number of passes.
extern "C" __global__ void seed(const State* state, float* y, int passes) {
    *y = (float)((state->scaled ? state->scale : 1.0) / passes);
}

struct None {};
__device__ __forceinline__ void put_half(None*, u64, const float (&)[8], int) {}
template <typename T>
__device__ __forceinline__ void put_half(T* half, u64 at, const float (&p)[8], int count) {
    if (count == 8) {
        store8(half + at, p);
    } else {
        for (int j = 0; j < 8; j++)
            if (j < count) half[at + j] = from_f32<T>(p[j]);
    }
}
__device__ __forceinline__ void get_some(const float* p, float (&y)[8], int count) {
    if (count == 8) {
        load8(p, y);
    } else {
        for (int j = 0; j < 8; j++) y[j] = j < count ? p[j] : 0.0f;
    }
}
__device__ __forceinline__ void put_some(float* p, const float (&y)[8], int count) {
    if (count == 8) {
        store8(p, y);
    } else {
        for (int j = 0; j < 8; j++)
            if (j < count) p[j] = y[j];
    }
}

// Eight parameters a thread. `factors` has the factor on the weight decay of every 16 parameters; where it is not a number
// they are left alone, and a sign says that another process counts their gradients. The gradient is zeroed whatever happens.
template <typename T>
__device__ void update(float* p, float* g, float* m, float* v, T* half, const float* factors, const Decision* decision,
                       u64 n, u64 decay, float b1, float c1, float b2, float c2, float eps) {
    Decision d = *decision;
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i * 8 < n; i += step) {
        u64 at = i * 8;
        int count = n - at < 8 ? (int)(n - at) : 8;
        float factor = factors[at / 16], zero[8] = {};
        if (!d.skip && factor == factor) {
            float keep = (float)(1.0 - number(decay) * fabsf(factor));
            float a[8], b[8], c[8], e[8];
            get_some(p + at, a, count);
            get_some(g + at, b, count);
            get_some(m + at, c, count);
            get_some(v + at, e, count);
            for (int j = 0; j < 8; j++) {
                float x = b[j] * d.grad_scale;
                c[j] = fmaf(b1, c[j], c1 * x);
                e[j] = fmaf(b2, e[j], c2 * x * x);
                a[j] = a[j] * keep - d.size * (c[j] / (sqrtf(e[j]) / d.root + eps));
            }
            put_some(p + at, a, count);
            put_some(m + at, c, count);
            put_some(v + at, e, count);
            put_half(half, at, a, count);
        }
        put_some(g + at, zero, count);
    }
}

#define ADAMW(name, T) \
    extern "C" __global__ void __launch_bounds__(256) adamw_##name( \
        float* p, float* g, float* m, float* v, T* half, const float* factors, const Decision* decision, u64 n, u64 decay, \
        float b1, float c1, float b2, float c2, float eps) { \
        update(p, g, m, v, half, factors, decision, n, decay, b1, c1, b2, c2, eps); \
    }
ADAMW(f32, None)
ADAMW(bf16, bf16)
ADAMW(f16, f16)
