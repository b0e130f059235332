// Group norm of channels-last maps x [samples, positions, c], SiLU behind it where wanted.
//
// The fast kernels take 8 neighbouring channels a thread and as many rows at once as fit a block; a block has a slab of
// rows of one sample. The `any` kernels take everything else.

#define THREADS 256

// Mean and sum of squared differences from it, of n numbers.
struct Moments { float mean, m2; };

// exp for float32 as exact as it comes; for half types the hardware's is more than enough.
template <typename T> __device__ __forceinline__ float sigmoid(float z) {
    if constexpr (sizeof(T) == 4) return 1.0f / (1.0f + expf(-z));
    else return __fdividef(1.0f, 1.0f + __expf(-z));
}
template <typename T> __device__ __forceinline__ float activated(float z, int silu) {
    return silu ? z * sigmoid<T>(z) : z;
}
// The slope of what follows the norm.
template <typename T> __device__ __forceinline__ float slope(float z, int silu) {
    if (!silu) return 1.0f;
    float s = sigmoid<T>(z);
    return s * (1.0f + z * (1.0f - s));
}

// A thread's place: its 8 channels, its first row and the step to the next one.
struct Place {
    int channel, lane, lanes;
    bool works;
    u64 begin, end;
};
__device__ __forceinline__ Place place(int positions, int c, int slab) {
    int groups = c / 8;
    Place p;
    p.lanes = blockDim.x / groups;
    p.lane = threadIdx.x / groups;
    p.channel = (threadIdx.x - p.lane * groups) * 8;
    p.works = p.lane < p.lanes;
    p.begin = (u64)blockIdx.x * slab;
    p.end = min(p.begin + slab, (u64)positions);
    return p;
}
// Rows that a lane takes out of n.
__device__ __forceinline__ int share(int n, int lane, int lanes) { return n > lane ? (n - lane - 1) / lanes + 1 : 0; }

// Moments of every group over a slab. Sums are of differences from the first number of each channel, so that a mean far
// from zero costs no bits.
template <typename T>
__device__ void moments(const T* x, Moments* partial, int positions, int c, int groups, int slab) {
    extern __shared__ float shared[];  // means, then m2, [lanes][c]; then both of every channel
    Place p = place(positions, c, slab);
    int sample = blockIdx.y, rows = (int)(p.end - p.begin);
    if (p.works) {
        const T* base = x + (u64)sample * positions * c + p.channel;
        float pivot[8], sum[8] = {}, square[8] = {};
        u64 row = p.begin + p.lane;
        if (row < p.end) load8(base + row * c, pivot);
#pragma unroll 4
        for (; row < p.end; row += p.lanes) {
            float v[8];
            load8(base + row * c, v);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float d = v[j] - pivot[j];
                sum[j] += d;
                square[j] = fmaf(d, d, square[j]);
            }
        }
        int n = share(rows, p.lane, p.lanes);
        float inverse = n > 0 ? 1.0f / n : 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int at = p.lane * c + p.channel + j;
            shared[at] = n > 0 ? pivot[j] + sum[j] * inverse : 0.0f;
            // Rounded below zero it is zero; what is no number stays none.
            float m2 = square[j] - sum[j] * sum[j] * inverse;
            shared[p.lanes * c + at] = m2 < 0.0f ? 0.0f : m2;
        }
    }
    __syncthreads();
    float* means = shared;
    float* m2s = shared + p.lanes * c;
    // Every channel over the lanes; the result takes lane 0's place.
    for (int channel = threadIdx.x; channel < c; channel += blockDim.x) {
        float mean = 0.0f, m2 = 0.0f;
        for (int l = 0; l < p.lanes; l++) mean += share(rows, l, p.lanes) * means[l * c + channel];
        mean /= rows;
        for (int l = 0; l < p.lanes; l++) {
            float d = means[l * c + channel] - mean;
            m2 += m2s[l * c + channel] + share(rows, l, p.lanes) * d * d;
        }
        means[channel] = mean;
        m2s[channel] = m2;
    }
    __syncthreads();
    // Every group over its channels.
    int per = c / groups;
    for (int group = threadIdx.x; group < groups; group += blockDim.x) {
        float mean = 0.0f, m2 = 0.0f;
        for (int i = 0; i < per; i++) mean += means[group * per + i];
        mean /= per;
        for (int i = 0; i < per; i++) {
            float d = means[group * per + i] - mean;
            m2 += m2s[group * per + i] + rows * d * d;
        }
        Moments m = {mean, m2};
        partial[((u64)sample * gridDim.x + blockIdx.x) * groups + group] = m;
    }
}

#define MOMENTS(name, T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) moments_##name(const T* x, Moments* partial,               \
    int positions, int c, int groups, int slab) { moments(x, partial, positions, c, groups, slab); }
MOMENTS(f32, float)
MOMENTS(bf16, bf16)
MOMENTS(f16, f16)

// Mean and 1/√(variance + eps) of every group of every sample from those of its slabs: a warp each.
extern "C" __global__ void merge_moments(const Moments* partial, float* stats, int positions, int c, int groups,
    int slab, int slabs, int count, float eps) {
    int at = (int)(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
    if (at >= count) return;
    const Moments* mine = partial + (u64)(at / groups) * slabs * groups + at % groups;
    float per = (float)(c / groups), mean = 0.0f, m2 = 0.0f;
    for (int s = lane; s < slabs; s += 32) mean += (min(slab, positions - s * slab) * per) * mine[(u64)s * groups].mean;
    float n = positions * per;
    mean = warp_sum(mean) / n;
    for (int s = lane; s < slabs; s += 32) {
        Moments m = mine[(u64)s * groups];
        float d = m.mean - mean;
        m2 += m.m2 + (min(slab, positions - s * slab) * per) * d * d;
    }
    m2 = warp_sum(m2);
    if (lane == 0) {
        stats[2 * at] = mean;
        stats[2 * at + 1] = inverse_deviation(m2 / n, eps);
    }
}

// Any shape: a block for every group of every sample, mean first, then the differences from it.
template <typename T>
__device__ void any_moments(const T* x, float* stats, int positions, int c, int groups, float eps) {
    __shared__ float scratch[32];
    int group = blockIdx.x, sample = blockIdx.y, per = c / groups;
    const T* base = x + (u64)sample * positions * c + group * per;
    u64 n = (u64)positions * per;
    float sum = 0.0f;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) sum += to_f32(base[i / per * c + i % per]);
    float mean = block_sum(sum, scratch) / n;
    float m2 = 0.0f;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) {
        float d = to_f32(base[i / per * c + i % per]) - mean;
        m2 = fmaf(d, d, m2);
    }
    m2 = block_sum(m2, scratch);
    if (threadIdx.x == 0) {
        float* mine = stats + 2 * (sample * groups + group);
        mine[0] = mean;
        mine[1] = inverse_deviation(m2 / n, eps);
    }
}

#define ANY_MOMENTS(name, T)                                                                                         \
    extern "C" __global__ void any_moments_##name(const T* x, float* stats, int positions, int c, int groups,        \
    float eps) { any_moments(x, stats, positions, c, groups, eps); }
ANY_MOMENTS(f32, float)
ANY_MOMENTS(bf16, bf16)
ANY_MOMENTS(f16, f16)

// y from x and the statistics.
template <typename T>
__device__ void apply(const T* x, const float* gamma, const float* beta, const float* stats, T* y, int positions,
    int c, int groups, int slab, int silu) {
    Place p = place(positions, c, slab);
    if (!p.works) return;
    int per = c / groups;
    const float* mine = stats + 2 * blockIdx.y * groups;
    float mean[8], scale[8], shift[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int channel = p.channel + j, group = channel / per;
        mean[j] = mine[2 * group];
        scale[j] = mine[2 * group + 1] * gamma[channel];
        shift[j] = beta[channel];
    }
    u64 base = (u64)blockIdx.y * positions * c + p.channel;
#pragma unroll 4
    for (u64 row = p.begin + p.lane; row < p.end; row += p.lanes) {
        float v[8];
        load8(x + base + row * c, v);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = activated<T>(fmaf(v[j] - mean[j], scale[j], shift[j]), silu);
        store8(y + base + row * c, v);
    }
}

#define APPLY(name, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) apply_##name(const T* x, const float* gamma,               \
    const float* beta, const float* stats, T* y, int positions, int c, int groups, int slab, int silu) {             \
    apply(x, gamma, beta, stats, y, positions, c, groups, slab, silu); }
APPLY(f32, float)
APPLY(bf16, bf16)
APPLY(f16, f16)

template <typename T>
__device__ void any_apply(const T* x, const float* gamma, const float* beta, const float* stats, T* y, u64 n,
    int positions, int c, int groups, int silu) {
    int per = c / groups;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        int channel = (int)(i % c);
        const float* mine = stats + 2 * (i / ((u64)positions * c) * groups + channel / per);
        y[i] = from_f32<T>(activated<T>(fmaf(to_f32(x[i]) - mine[0], mine[1] * gamma[channel], beta[channel]), silu));
    }
}

#define ANY_APPLY(name, T)                                                                                           \
    extern "C" __global__ void any_apply_##name(const T* x, const float* gamma, const float* beta,                   \
    const float* stats, T* y, u64 n, int positions, int c, int groups, int silu) { any_apply(x, gamma, beta,         \
    stats, y, n, positions, c, groups, silu); }
ANY_APPLY(f32, float)
ANY_APPLY(bf16, bf16)
ANY_APPLY(f16, f16)

// Gradient, first part: over a slab, every channel's sums of dz and of dz·x̂, to partial [sample, slab, 2, c].
template <typename T>
__device__ void sums(const T* x, const T* g, const float* gamma, const float* beta, const float* stats,
    float* partial, int positions, int c, int groups, int slab, int silu) {
    extern __shared__ float shared[];  // [2][lanes][c]
    Place p = place(positions, c, slab);
    if (p.works) {
        int per = c / groups;
        const float* mine = stats + 2 * blockIdx.y * groups;
        float mean[8], rstd[8], scale[8], shift[8], first[8] = {}, second[8] = {};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int channel = p.channel + j, group = channel / per;
            mean[j] = mine[2 * group];
            rstd[j] = mine[2 * group + 1];
            scale[j] = gamma[channel];
            shift[j] = beta[channel];
        }
        u64 base = (u64)blockIdx.y * positions * c + p.channel;
#pragma unroll 2
        for (u64 row = p.begin + p.lane; row < p.end; row += p.lanes) {
            float v[8], d[8];
            load8(x + base + row * c, v);
            load8(g + base + row * c, d);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float hat = (v[j] - mean[j]) * rstd[j];
                float dz = d[j] * slope<T>(fmaf(hat, scale[j], shift[j]), silu);
                first[j] += dz;
                second[j] = fmaf(dz, hat, second[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
            shared[p.lane * c + p.channel + j] = first[j];
            shared[(p.lanes + p.lane) * c + p.channel + j] = second[j];
        }
    }
    __syncthreads();
    float* out = partial + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * 2 * c;
    for (int i = threadIdx.x; i < 2 * c; i += blockDim.x) {
        int which = i / c, channel = i - which * c;
        float all = 0.0f;
        for (int l = 0; l < p.lanes; l++) all += shared[(which * p.lanes + l) * c + channel];
        out[i] = all;
    }
}

#define SUMS(name, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) sums_##name(const T* x, const T* g,                        \
    const float* gamma, const float* beta, const float* stats, float* partial, int positions, int c, int groups,     \
    int slab, int silu) { sums(x, g, gamma, beta, stats, partial, positions, c, groups, slab, silu); }
SUMS(f32, float)
SUMS(bf16, bf16)
SUMS(f16, f16)

// The slabs of every sample together: sums [sample, 2, c].
extern "C" __global__ void merge_sums(const float* partial, float* sums, int width, int slabs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    const float* mine = partial + (u64)blockIdx.y * slabs * width + i;
    float all = 0.0f;
    for (int s = 0; s < slabs; s++) all += mine[(u64)s * width];
    sums[(u64)blockIdx.y * width + i] = all;
}

// Any shape: a block for every channel of every sample.
template <typename T>
__device__ void any_sums(const T* x, const T* g, const float* gamma, const float* beta, const float* stats,
    float* sums, int positions, int c, int groups, int silu) {
    __shared__ float scratch[32];
    int channel = blockIdx.x, sample = blockIdx.y;
    const float* mine = stats + 2 * (sample * groups + channel / (c / groups));
    float mean = mine[0], rstd = mine[1], first = 0.0f, second = 0.0f;
    for (u64 row = threadIdx.x; row < positions; row += blockDim.x) {
        u64 at = ((u64)sample * positions + row) * c + channel;
        float hat = (to_f32(x[at]) - mean) * rstd;
        float dz = to_f32(g[at]) * slope<T>(fmaf(hat, gamma[channel], beta[channel]), silu);
        first += dz;
        second = fmaf(dz, hat, second);
    }
    first = block_sum(first, scratch);
    second = block_sum(second, scratch);
    if (threadIdx.x == 0) {
        sums[(u64)sample * 2 * c + channel] = first;
        sums[(u64)sample * 2 * c + c + channel] = second;
    }
}

#define ANY_SUMS(name, T)                                                                                            \
    extern "C" __global__ void any_sums_##name(const T* x, const T* g, const float* gamma, const float* beta,        \
    const float* stats, float* sums, int positions, int c, int groups, int silu) { any_sums(x, g, gamma, beta,       \
    stats, sums, positions, c, groups, silu); }
ANY_SUMS(f32, float)
ANY_SUMS(bf16, bf16)
ANY_SUMS(f16, f16)

// Adds the sums of all samples to the gradient of a parameter: β's are the first, γ's the second. A warp a channel.
extern "C" __global__ void add_parameter_sums(const float* sums, float* grad, int samples, int c, int which) {
    int channel = (int)(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
    if (channel >= c) return;
    float all = 0.0f;
    for (int s = lane; s < samples; s += 32) all += sums[((u64)s * 2 + which) * c + channel];
    all = warp_sum(all);
    if (lane == 0) grad[channel] += all;
}

// Averages over every group of γ·dz and γ·dz·x̂: [sample, groups, 2].
extern "C" __global__ void averages(const float* sums, const float* gamma, float* out, int positions, int c,
    int groups, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int per = c / groups, group = i % groups;
    const float* mine = sums + (u64)(i / groups) * 2 * c + group * per;
    float first = 0.0f, second = 0.0f;
    for (int j = 0; j < per; j++) {
        first = fmaf(gamma[group * per + j], mine[j], first);
        second = fmaf(gamma[group * per + j], mine[c + j], second);
    }
    float n = (float)positions * per;
    out[2 * i] = first / n;
    out[2 * i + 1] = second / n;
}

// Second part: dx.
template <typename T>
__device__ void back(const T* x, const T* g, const float* gamma, const float* beta, const float* stats,
    const float* average, T* dx, int positions, int c, int groups, int slab, int silu) {
    Place p = place(positions, c, slab);
    if (!p.works) return;
    int per = c / groups;
    const float* mine = stats + 2 * blockIdx.y * groups;
    const float* avg = average + 2 * blockIdx.y * groups;
    u64 base = (u64)blockIdx.y * positions * c + p.channel;
    float mean[8], rstd[8], scale[8], shift[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int group = (p.channel + j) / per;
        mean[j] = mine[2 * group];
        rstd[j] = mine[2 * group + 1];
        scale[j] = gamma[p.channel + j];
        shift[j] = beta[p.channel + j];
    }
    float a[8], b[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int group = (p.channel + j) / per;
        a[j] = avg[2 * group];
        b[j] = avg[2 * group + 1];
    }
#pragma unroll 2
    for (u64 row = p.begin + p.lane; row < p.end; row += p.lanes) {
        float v[8], d[8];
        load8(x + base + row * c, v);
        load8(g + base + row * c, d);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float hat = (v[j] - mean[j]) * rstd[j];
            float dz = d[j] * slope<T>(fmaf(hat, scale[j], shift[j]), silu);
            d[j] = rstd[j] * (fmaf(scale[j], dz, -a[j]) - hat * b[j]);
        }
        store8(dx + base + row * c, d);
    }
}

#define BACK(name, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) back_##name(const T* x, const T* g,                        \
    const float* gamma, const float* beta, const float* stats, const float* average, T* dx, int positions,           \
    int c, int groups, int slab, int silu) { back(x, g, gamma, beta, stats, average, dx, positions, c, groups,       \
    slab, silu); }
BACK(f32, float)
BACK(bf16, bf16)
BACK(f16, f16)

template <typename T>
__device__ void any_back(const T* x, const T* g, const float* gamma, const float* beta, const float* stats,
    const float* average, T* dx, u64 n, int positions, int c, int groups, int silu) {
    int per = c / groups;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        int channel = (int)(i % c);
        u64 at = 2 * (i / ((u64)positions * c) * groups + channel / per);
        float rstd = stats[at + 1], hat = (to_f32(x[i]) - stats[at]) * rstd;
        float dz = to_f32(g[i]) * slope<T>(fmaf(hat, gamma[channel], beta[channel]), silu);
        dx[i] = from_f32<T>(rstd * (fmaf(gamma[channel], dz, -average[at]) - hat * average[at + 1]));
    }
}

#define ANY_BACK(name, T)                                                                                            \
    extern "C" __global__ void any_back_##name(const T* x, const T* g, const float* gamma, const float* beta,        \
    const float* stats, const float* average, T* dx, u64 n, int positions, int c, int groups, int silu) {            \
    any_back(x, g, gamma, beta, stats, average, dx, n, positions, c, groups, silu); }
ANY_BACK(f32, float)
ANY_BACK(bf16, bf16)
ANY_BACK(f16, f16)
