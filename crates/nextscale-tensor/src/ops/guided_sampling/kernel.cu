// Guidance, top-k, top-p and one draw a token. A block takes a row of up to sixteen codes a thread and keeps the logits in
// registers; what passes top-k goes to shared memory as (value, code) pairs, in the order of which top-p removes.

constexpr int ITEMS = 16;
#define MINUS_INF __int_as_float(0xff800000)

// A float's bits as an integer of the same order, −0 before +0.
__device__ __forceinline__ u32 ordered(float x) {
    u32 b = __float_as_uint(x);
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
__device__ __forceinline__ float from_ordered(u32 k) {
    return __uint_as_float(k & 0x80000000u ? k & 0x7fffffffu : ~k);
}

// Where all numbers lie in that order, −∞ and +∞ left out.
constexpr u32 LEAST = 0x007fffffu, MOST = 0xff800000u;
// What is drawn where logits are no numbers.
constexpr int NO_CODE = -1;

// The code that register j of this thread belongs to: four neighbours at a time, so that a warp reads whole lines.
__device__ __forceinline__ int code_of(int j) { return ((j >> 2) * blockDim.x + threadIdx.x) * 4 + (j & 3); }

// Rounded step by step as on the CPU.
__device__ __forceinline__ float guided(float c, float u, float t) {
    // +∞ without class would make −∞, and be taken for a removed code.
    if (!(u - u == 0.0f)) return __int_as_float(0x7fffffff);
    return __fsub_rn(__fmul_rn(__fadd_rn(1.0f, t), c), __fmul_rn(t, u));
}

// A row, guided where there is a row without class; −∞ where there is no code.
__device__ __forceinline__ void load_row(const float* c, const float* u, float t, int v, float (&x)[ITEMS]) {
    bool whole = v % 4 == 0 && aligned16(c) && aligned16(u);
#pragma unroll
    for (int q = 0; q < ITEMS / 4; q++) {
        int at = code_of(4 * q);
        Words4 a, b;
        if (whole && at < v) {
            a = *(const Words4*)(c + at);
            if (u) b = *(const Words4*)(u + at);
        } else {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                a.w[j] = at + j < v ? __float_as_uint(c[at + j]) : 0xff800000u;
                if (u) b.w[j] = at + j < v ? __float_as_uint(u[at + j]) : 0u;
            }
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float y = __uint_as_float(a.w[j]);
            if (u && at + j < v) y = guided(y, __uint_as_float(b.w[j]), t);
            x[4 * q + j] = y;
        }
    }
}

// What the threads of a block tell each other.
struct Board {
    u32 counts[2][32];
    u32 words[32];
    u64 best[32];
    double sums[32];
    double before[32];
};

__device__ __forceinline__ u32 block_max(u32 x, Board& s) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = __reduce_max_sync(0xffffffffu, x);
    __syncthreads();
    if (lane == 0) s.words[warp] = x;
    __syncthreads();
    return __reduce_max_sync(0xffffffffu, lane < warps ? s.words[lane] : 0u);
}

// A bound that exactly the k largest and what equals the k-th reach, found two bits at a time.
__device__ __forceinline__ u32 bound_of_largest(const float (&x)[ITEMS], int k, Board& s) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    u32 bound = 0;
    for (int shift = 30; shift >= 0; shift -= 2) {
        u32 one = bound | 1u << shift, two = bound | 2u << shift, three = bound | 3u << shift;
        // Three counts in one word: a warp has 512 registers.
        u32 n = 0;
#pragma unroll
        for (int j = 0; j < ITEMS; j++) {
            // Zeros of both signs are equal here.
            u32 key = ordered(x[j] + 0.0f);
            n += (key >= one ? 1u : 0u) + (key >= two ? 1u << 10 : 0u) + (key >= three ? 1u << 20 : 0u);
        }
        n = __reduce_add_sync(0xffffffffu, n);
        u32* counts = s.counts[shift >> 1 & 1];
        if (lane == 0) counts[warp] = n;
        __syncthreads();
        n = lane < warps ? counts[lane] : 0u;
        int a = (int)__reduce_add_sync(0xffffffffu, n & 1023u);
        int b = (int)__reduce_add_sync(0xffffffffu, n >> 10 & 1023u);
        int c = (int)__reduce_add_sync(0xffffffffu, n >> 20);
        int reached = c >= k ? c : b >= k ? b : a >= k ? a : 0;
        bound = c >= k ? three : b >= k ? two : a >= k ? one : bound;
        if (reached == k) break;
    }
    return bound;
}

__device__ __forceinline__ void keep_top_k(float (&x)[ITEMS], int k, Board& s) {
    u32 bound = bound_of_largest(x, k, s);
#pragma unroll
    for (int j = 0; j < ITEMS; j++)
        if (ordered(x[j] + 0.0f) < bound) x[j] = MINUS_INF;
}

// Writes what is left to `list`, in an order that depends on nothing else; returns how many there are.
__device__ __forceinline__ int gather(const float (&x)[ITEMS], u64* list, Board& s) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    u32 mine = 0;
#pragma unroll
    for (int j = 0; j < ITEMS; j++) mine += x[j] > MINUS_INF ? 1u : 0u;
    u32 upto = mine;
    for (int d = 1; d < 32; d <<= 1) {
        u32 other = __shfl_up_sync(0xffffffffu, upto, d);
        if (lane >= d) upto += other;
    }
    __syncthreads();
    if (lane == 31) s.words[warp] = upto;
    __syncthreads();
    u32 of_warp = lane < warps ? s.words[lane] : 0u;
    u32 at = upto - mine + __reduce_add_sync(0xffffffffu, lane < warp ? of_warp : 0u);
    u32 all = __reduce_add_sync(0xffffffffu, of_warp);
#pragma unroll
    for (int j = 0; j < ITEMS; j++)
        if (x[j] > MINUS_INF) list[at++] = (u64)ordered(x[j]) << 32 | (u32)code_of(j);
    __syncthreads();
    return (int)all;
}

// Sorts E pairs a thread ascending: thread t gets those of rank t·E on. Pairs change places in registers, then among the
// lanes of a warp, and only over greater distances through shared memory.
template <int E> __device__ __forceinline__ void sort(u64 (&key)[E], u64* list, int room) {
    int first = threadIdx.x * E;
    for (int run = 2; run <= room; run <<= 1) {
        for (int apart = run >> 1; apart >= E; apart >>= 1) {
            bool least = ((first & apart) == 0) == ((first & run) == 0);
            if (apart < 32 * E) {
#pragma unroll
                for (int e = 0; e < E; e++) {
                    u64 other = __shfl_xor_sync(0xffffffffu, key[e], apart / E);
                    key[e] = (other < key[e]) == least ? other : key[e];
                }
            } else {
                __syncthreads();
#pragma unroll
                for (int e = 0; e < E; e++) list[e * blockDim.x + threadIdx.x] = key[e];
                __syncthreads();
#pragma unroll
                for (int e = 0; e < E; e++) {
                    u64 other = list[e * blockDim.x + (threadIdx.x ^ (apart / E))];
                    key[e] = (other < key[e]) == least ? other : key[e];
                }
            }
        }
#pragma unroll
        for (int apart = E / 2; apart > 0; apart >>= 1) {
            if (apart >= run) continue;
#pragma unroll
            for (int e = 0; e < E; e++) {
                if (e & apart) continue;
                u64 a = key[e], b = key[e | apart];
                bool swap = (a > b) == (((first + e) & run) == 0);
                key[e] = swap ? b : a;
                key[e | apart] = swap ? a : b;
            }
        }
    }
}

// Sorts the n pairs of `list`, at most E a thread, and tells how many of them top-p removes: while the running probability
// is at most `limit`, never the last. Weights are float32 and sums float64, rounded to float32 where they are compared.
template <int E> __device__ __forceinline__ int sort_and_remove(u64* list, int n, float limit, Board& s) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5, from = threadIdx.x * E;
    u64 key[E];
#pragma unroll
    for (int e = 0; e < E; e++) {
        int i = e * blockDim.x + threadIdx.x;
        key[e] = i < n ? list[i] : ~0ull;
    }
    sort(key, list, E * blockDim.x);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < E; e++) list[from + e] = key[e];
    __syncthreads();
    float max = from_ordered((u32)(list[n - 1] >> 32)), w[E];
    double sum = 0.0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        w[e] = 0.0f;
        if (from + e < n) w[e] = (float)exp((double)__fsub_rn(from_ordered((u32)(key[e] >> 32)), max));
        sum += (double)w[e];
    }
    float all = (float)block_sum64(sum, s.sums);
    double share = 0.0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        w[e] = __fdiv_rn(w[e], all);
        share += (double)w[e];
    }
    double upto = share;
    for (int d = 1; d < 32; d <<= 1) {
        double other = __shfl_up_sync(0xffffffffu, upto, d);
        if (lane >= d) upto += other;
    }
    if (lane == 31) s.before[warp] = upto;
    __syncthreads();
    double running = upto - share;
    if (warp > 0) {
        double of_warps = 0.0;
        for (int i = 0; i < warp; i++) of_warps += s.before[i];
        running += of_warps;
    }
    u32 first = (u32)(n - 1);
#pragma unroll
    for (int e = 0; e < E; e++) {
        running += (double)w[e];
        if (from + e < n && (float)running > limit) first = min(first, (u32)(from + e));
    }
    first = __reduce_min_sync(0xffffffffu, first);
    __syncthreads();
    if (lane == 0) s.words[warp] = first;
    __syncthreads();
    return (int)__reduce_min_sync(0xffffffffu, lane < warps ? s.words[lane] : 0xffffffffu);
}

__device__ __forceinline__ int removed(u64* list, int n, float limit, Board& s) {
    int threads = blockDim.x;
    if (n <= threads) return sort_and_remove<1>(list, n, limit, s);
    if (n <= 4 * threads) return sort_and_remove<4>(list, n, limit, s);
    return sort_and_remove<ITEMS>(list, n, limit, s);
}

// Where random numbers come from: given ones, or counters. `params` holds seed and number of the first image as two pairs
// of words, low first.
struct Noise {
    const float* given;
    u32 k0, k1, t0, t1, t2, at;
    __device__ Noise(const float* all, const int* params, u64 seed, u64 first, u64 scale, int purpose, u64 row, int l, int v) {
        given = all ? all + row * v : all;
        if (params) {
            seed = (u32)params[0] | (u64)(u32)params[1] << 32;
            first = (u32)params[2] | (u64)(u32)params[3] << 32;
        }
        u64 lane = first + row / (u32)l;
        u32 a = (u32)(lane >> 32), b = (u32)(scale >> 32);
        k0 = (u32)seed;
        k1 = (u32)(seed >> 32) ^ (a << 8 | a >> 24) ^ (b << 16 | b >> 16);
        t0 = (u32)purpose;
        t1 = (u32)scale;
        t2 = (u32)lane;
        at = (u32)(row % (u32)l) * (u32)v;
    }
    __device__ __forceinline__ float uniform(int code) const {
        u32 position = at + (u32)code;
        Words y = philox(position >> 2, t0, t1, t2, k0, k1);
        u32 w = position & 3;
        return open_unit(w == 0 ? y.w[0] : w == 1 ? y.w[1] : w == 2 ? y.w[2] : y.w[3]);
    }
    __device__ __forceinline__ float exponential(int code) const { return given ? given[code] : -logf(uniform(code)); }
    __device__ __forceinline__ float gumbel(int code) const { return given ? given[code] : -logf(-logf(uniform(code))); }
};

// argmax(p/e) over the list from `from` on; the lowest code of several.
__device__ __forceinline__ int draw(const u64* list, int from, int n, float max, const Noise& noise, Board& s) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    double sum = 0.0;
    for (int i = from + threadIdx.x; i < n; i += blockDim.x) sum += (double)expf(from_ordered((u32)(list[i] >> 32)) - max);
    float all = (float)block_sum64(sum, s.sums);
    u64 best = 0;
    for (int i = from + threadIdx.x; i < n; i += blockDim.x) {
        u64 pair = list[i];
        int code = (int)(u32)pair;
        float p = expf(from_ordered((u32)(pair >> 32)) - max);
        if (p == 0.0f) continue;
        float score = __fdiv_rn(__fdiv_rn(p, all), noise.exponential(code));
        // Scores are not negative, so their bits are in order.
        u64 mine = (u64)__float_as_uint(score) << 32 | (u32)~code;
        if (score >= 0.0f && mine > best) best = mine;
    }
    for (int d = 16; d > 0; d >>= 1) {
        u64 other = __shfl_xor_sync(0xffffffffu, best, d);
        best = other > best ? other : best;
    }
    if (lane == 0) s.best[warp] = best;
    __syncthreads();
    for (int i = 0; i < warps; i++) best = s.best[i] > best ? s.best[i] : best;
    return best == 0 ? 0 : (int)~(u32)best;
}

// Filters a row; what is left is list[from..n).
__device__ __forceinline__ void filter(float (&x)[ITEMS], u64* list, int v, int top_k, int use_p, float limit, int& from, int& n, Board& s) {
    if (top_k > 0 && top_k < v) keep_top_k(x, top_k, s);
    n = gather(x, list, s);
    from = 0;
    if (use_p && n > 1) from = removed(list, n, limit, s);
}

extern __shared__ u64 pairs[];

// The largest logit of a row in that order; beyond MOST where one is no number.
__device__ __forceinline__ u32 largest(const float (&x)[ITEMS], Board& s) {
    u32 most = 0;
#pragma unroll
    for (int j = 0; j < ITEMS; j++) most = max(most, x[j] == x[j] ? ordered(x[j]) : 0xffffffffu);
    return block_max(most, s);
}
__device__ __forceinline__ bool has_shares(u32 most) { return most > LEAST && most < MOST; }

// Where a row's pairs are: in shared memory, or in the GPU's where a block can't have so much.
__device__ __forceinline__ u64* list_of(u64* wide) { return wide + blockIdx.x * (u64)(ITEMS * blockDim.x); }

template <bool WIDE>
__device__ __forceinline__ void sample(u64* wide, const float* logits, int* out, const float* given, const int* params, u64 seed, u64 first,
                                       u64 scale, int l, int v, u64 rows, int guide, float t, int top_k, int use_p, float limit) {
    __shared__ Board s;
    u64 row = blockIdx.x;
    float x[ITEMS];
    const float* c = logits + row * v;
    load_row(c, guide ? c + rows * v : nullptr, t, v, x);
    u32 most = largest(x, s);
    if (!has_shares(most)) {
        if (threadIdx.x == 0) out[row] = NO_CODE;
        return;
    }
    float top = from_ordered(most);
    u64* list = WIDE ? list_of(wide) : pairs;
    int from, n;
    filter(x, list, v, top_k, use_p, limit, from, n, s);
    Noise noise(given, params, seed, first, scale, 6, row, l, v);
    int code = draw(list, from, n, top, noise, s);
    if (threadIdx.x == 0) out[row] = code;
}

template <bool WIDE>
__device__ __forceinline__ void filtered(u64* wide, const float* logits, float* out, int v, int top_k, int use_p, float limit) {
    __shared__ Board s;
    u64 row = blockIdx.x;
    float x[ITEMS];
    load_row(logits + row * v, nullptr, 0.0f, v, x);
    float* y = out + row * v;
    if (!has_shares(largest(x, s))) {
#pragma unroll
        for (int j = 0; j < ITEMS; j++)
            if (code_of(j) < v) y[code_of(j)] = __int_as_float(0x7fffffff);
        return;
    }
    u64* list = WIDE ? list_of(wide) : pairs;
    int from, n;
    filter(x, list, v, top_k, use_p, limit, from, n, s);
#pragma unroll
    for (int j = 0; j < ITEMS; j++)
        if (code_of(j) < v) y[code_of(j)] = MINUS_INF;
    __syncthreads();
    for (int i = from + threadIdx.x; i < n; i += blockDim.x) y[(u32)list[i]] = from_ordered((u32)(list[i] >> 32));
}

// softmax(((1 + ratio)·x + gumbel)/tau) of a row; a removed code stays removed whatever its noise.
__device__ __forceinline__ void blend(const float* x, float* p, const float* given, const int* params, u64 seed, u64 first,
                                      u64 scale, int l, int v, float ratio, float tau) {
    __shared__ Board s;
    u64 row = blockIdx.x;
    float z[ITEMS];
    load_row(x + row * v, nullptr, 0.0f, v, z);
    Noise noise(given, params, seed, first, scale, 7, row, l, v);
    u32 most = 0;
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
        if (z[j] != MINUS_INF) z[j] = __fdiv_rn(__fadd_rn(__fmul_rn(z[j], __fadd_rn(1.0f, ratio)), noise.gumbel(code_of(j))), tau);
        most = max(most, ordered(z[j]));
    }
    float top = from_ordered(block_max(most, s));
    double sum = 0.0;
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
        z[j] = expf(z[j] - top);
        sum += code_of(j) < v ? (double)z[j] : 0.0;
    }
    float all = (float)block_sum64(sum, s.sums);
#pragma unroll
    for (int j = 0; j < ITEMS; j++)
        if (code_of(j) < v) p[row * v + code_of(j)] = z[j] / all;
}

// Up to 4096 codes in blocks of 256 threads, up to 16384 in blocks of 1024; `wide` where pairs do not fit into shared memory.
#define SIZES(name, THREADS, BLOCKS, WIDE) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) sample_tokens_##name(u64* wide, const float* logits, int* out, const float* given, const int* params, u64 seed, u64 first, u64 scale, int l, int v, u64 rows, int guide, float t, int top_k, int use_p, float limit) { sample<WIDE>(wide, logits, out, given, params, seed, first, scale, l, v, rows, guide, t, top_k, use_p, limit); }
SIZES(small, 256, 4, false)
SIZES(large, 1024, 1, false)
SIZES(wide, 1024, 1, true)
#define FILTERS(name, THREADS, BLOCKS, WIDE) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) filter_logits_##name(u64* wide, const float* logits, float* out, int v, int top_k, int use_p, float limit) { filtered<WIDE>(wide, logits, out, v, top_k, use_p, limit); }
FILTERS(small, 256, 4, false)
FILTERS(large, 1024, 1, false)
FILTERS(wide, 1024, 1, true)
#define BLENDS(name, THREADS) \
    extern "C" __global__ void __launch_bounds__(THREADS) smooth_shares_##name(const float* x, float* p, const float* given, const int* params, u64 seed, u64 first, u64 scale, int l, int v, float ratio, float tau) { blend(x, p, given, params, seed, first, scale, l, v, ratio, tau); }
BLENDS(small, 256)
BLENDS(large, 1024)

// (1 + t)·cond − t·uncond, the second half of x being without class.
extern "C" __global__ void guide_logits(const float* x, float* y, float t, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    for (u64 i = at; i < n; i += step) y[i] = guided(x[i], x[n + i], t);
}
