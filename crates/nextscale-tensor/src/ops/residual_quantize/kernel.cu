// The whole residual quantizer, all scales of one image in one block. What is left over and f̂ stay in shared memory as
// [h·w][32]; sums are float32 and in the CPU's order, so that both choose the same codes.

#define C 32
#define QUADS (C / 4)
// Floats from a pixel to the next in φ's input: four more than its channels, so that neighbours lie in other banks.
#define PIXEL (C + 4)
#define THREADS SEARCH_THREADS
// Positions that a thread blends at once, for four of the channels.
#define POSITIONS 8

// One scale in the plan.
struct Scale {
    int h, w;
    // Tokens of the scales before, and vectors of the input sequence before this scale's.
    int tokens, input;
    // φ: where weight and bias begin, in floats; unused without φ.
    int weight, bias;
    // Where its axes' tables begin, in words of the plan: area down and right, bicubic down and right.
    int area_rows, area_cols, cubic_rows, cubic_cols;
};

struct Maps {
    float* rest;     // [h·w][C]
    float* f_hat;    // [h·w][C]
    float* padded;   // [h+2][w+2][PIXEL]; before φ the vectors to code, [m][C]
    float* scratch;  // [h·w][C] between two axes; then φ's weights, [9·C][C]
    u64* best;       // [h·w]
    int* tokens;     // [h·w]
    float* squares;  // [h·w]
    int h, w;
};

// y[sh][sw] = the map averaged to a scale's size, channels last. One barrier inside; the caller puts others around.
__device__ __forceinline__ void average(const Maps& m, const Scale& s, const int* plan, const float* map, float* y) {
    Axis down = axis_at(plan + s.area_rows, s.h), right = axis_at(plan + s.area_cols, s.w);
    for (int i = threadIdx.x; i < m.h * s.w * QUADS; i += THREADS) {
        int at = i / QUADS, q = i % QUADS, row = at / s.w, col = at - row * s.w;
        store(m.scratch + at * C + 4 * q, resized<4>(right, col, map + row * m.w * C + 4 * q, C));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < s.h * s.w * QUADS; i += THREADS) {
        int at = i / QUADS, q = i % QUADS, row = at / s.w, col = at - row * s.w;
        store(y + at * C + 4 * q, resized<4>(down, row, m.scratch + col * C + 4 * q, s.w * C));
    }
}

// The codes of a scale at full size, in φ's frame of zeros. Barriers as above.
__device__ __forceinline__ void spread(const Maps& m, const Scale& s, const int* plan, const float* codebook) {
    bool full = s.h == m.h && s.w == m.w;
    if (!full) {
        Axis right = axis_at(plan + s.cubic_cols, m.w);
        for (int i = threadIdx.x; i < s.h * m.w * QUADS; i += THREADS) {
            int at = i / QUADS, q = i % QUADS, row = at / m.w, col = at - row * m.w;
            Channels<4> sum = zeros<4>();
            for (int t = right.begins[col], end = right.begins[col + 1]; t < end; t++) {
                Tap tap = right.taps[t];
                const float* code = codebook + (u64)m.tokens[row * s.w + tap.from] * C;
                add_weighted(sum, tap.weight, load<4>(code + 4 * q));
            }
            store(m.scratch + at * C + 4 * q, sum);
        }
        __syncthreads();
    }
    Axis down = axis_at(plan + s.cubic_rows, m.h);
    for (int i = threadIdx.x; i < (m.h + 2) * (m.w + 2) * QUADS; i += THREADS) {
        int at = i / QUADS, q = i % QUADS, row = at / (m.w + 2) - 1, col = at % (m.w + 2) - 1;
        Channels<4> value = zeros<4>();
        if (row >= 0 && row < m.h && col >= 0 && col < m.w) {
            if (full)
                value = load<4>(codebook + (u64)m.tokens[row * m.w + col] * C + 4 * q);
            else
                value = resized<4>(down, row, m.scratch + col * C + 4 * q, m.w * C);
        }
        store(m.padded + at * PIXEL + 4 * q, value);
    }
}

// φ's weights [out][tap][in] to [tap·in][out] in shared memory.
__device__ __forceinline__ void take_weights(const Maps& m, const float* weight) {
    int out = threadIdx.x % C;
    for (int q = threadIdx.x / C; q < 9 * QUADS; q += THREADS / C) {
        Channels<4> w = load<4>(weight + out * 9 * C + 4 * q);
        for (int k = 0; k < 4; k++) m.scratch[(4 * q + k) * C + out] = w.v[k];
    }
}

// f̂ += h and, where codes are being searched, rest −= h, for four channels of a position.
template <bool SEARCHES>
__device__ __forceinline__ void move(const Maps& m, int position, int channel, const Channels<4>& h) {
    int at = position * C + channel;
    Channels<4> f = load<4>(m.f_hat + at);
    for (int k = 0; k < 4; k++) f.v[k] = __fadd_rn(f.v[k], h.v[k]);
    store(m.f_hat + at, f);
    if (SEARCHES) {
        Channels<4> rest = load<4>(m.rest + at);
        for (int k = 0; k < 4; k++) rest.v[k] = __fsub_rn(rest.v[k], h.v[k]);
        store(m.rest + at, rest);
    }
}

// h = (1 − ρ)·x + ρ·(conv(x) + b): a thread makes four channels of positions that are `groups` apart.
template <bool SEARCHES>
__device__ __forceinline__ void blend(const Maps& m, const float* bias, float rho) {
    int count = m.h * m.w, groups = (count + POSITIONS - 1) / POSITIONS, line = m.w + 2;
    for (int item = threadIdx.x; item < groups * QUADS; item += THREADS) {
        int channel = item % QUADS * 4, first = item / QUADS;
        const float* pixels[POSITIONS];
        float sum[POSITIONS][4] = {};
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) {
            int at = min(first + i * groups, count - 1), row = at / m.w;
            pixels[i] = m.padded + (row * line + at - row * m.w) * PIXEL;
        }
        for (int tap = 0; tap < 9; tap++) {
            int offset = (tap / 3 * line + tap % 3) * PIXEL;
            const float* weights = m.scratch + tap * C * C + channel;
#pragma unroll
            for (int q = 0; q < QUADS; q++) {
                Channels<4> w[4];
#pragma unroll
                for (int k = 0; k < 4; k++) w[k] = load<4>(weights + (4 * q + k) * C);
#pragma unroll
                for (int i = 0; i < POSITIONS; i++) {
                    Channels<4> x = load<4>(pixels[i] + offset + 4 * q);
#pragma unroll
                    for (int k = 0; k < 4; k++)
#pragma unroll
                        for (int o = 0; o < 4; o++) sum[i][o] = __fmaf_rn(x.v[k], w[k].v[o], sum[i][o]);
                }
            }
        }
        float keep = __fsub_rn(1.0f, rho);
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) {
            if (first + i * groups >= count) continue;
            Channels<4> h = load<4>(pixels[i] + (line + 1) * PIXEL + channel);
#pragma unroll
            for (int o = 0; o < 4; o++)
                h.v[o] = __fadd_rn(__fmul_rn(h.v[o], keep), __fmul_rn(__fadd_rn(sum[i][o], bias[channel + o]), rho));
            move<SEARCHES>(m, first + i * groups, channel, h);
        }
    }
}

// Squares of the vectors to code, which `by_angle` normalises in place, and no best codes yet.
__device__ __forceinline__ void prepare(const Maps& m, float* x, int count, bool by_angle) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    for (int v = warp; v < count; v += SEARCH_WARPS) {
        float value = x[v * C + lane];
        Square square;
        square.add(value);
        float total = square.total();
        if (by_angle) x[v * C + lane] = __fdiv_rn(value, length(total));
        if (lane == 0) {
            m.squares[v] = square_of(total, by_angle);
            m.best[v] = NO_CODE;
        }
    }
}

// `tokens` are [Σ B·l] scale by scale: written where codes are searched for, else read. `f_hat` and `input` may be null.
template <bool SEARCHES>
__device__ __forceinline__ void quantize(const float* f, int* tokens, const float* codebook, const float* packed,
                                         const float* code_squares, const float* phis, const int* plan, float* f_hat,
                                         float* input, int h, int w, int codes, int scales, int active, int length,
                                         int passes, int by_angle, int with_phi, float rho) {
    extern __shared__ float shared[];
    int count = h * w, image = blockIdx.x;
    Maps m;
    m.h = h;
    m.w = w;
    m.best = (u64*)shared;
    m.f_hat = shared + (2 * count + 3) / 4 * 4;
    m.rest = m.f_hat + count * C;
    m.padded = SEARCHES ? m.rest + count * C : m.rest;
    m.scratch = m.padded + (h + 2) * (w + 2) * PIXEL;
    m.tokens = (int*)(m.scratch + max(count, 9 * C) * C);
    m.squares = (float*)(m.tokens + count);
    for (int i = threadIdx.x; i < count * QUADS; i += THREADS) {
        if (SEARCHES) store(m.rest + 4 * i, load<4>(f + (u64)image * count * C + 4 * i));
        store(m.f_hat + 4 * i, zeros<4>());
    }
    // Whether there was no code for a vector, which is no number: then f̂ is none.
    bool none = false;
    for (int k = 0; k < scales; k++) {
        Scale s = ((const Scale*)plan)[k];
        int l = s.h * s.w;
        bool full = s.h == h && s.w == w;
        int* own = tokens + (u64)gridDim.x * s.tokens + (u64)image * l;
        __syncthreads();
        if (SEARCHES) {
            float* x = m.padded;
            if (!full) {
                average(m, s, plan, m.rest, x);
            } else if (by_angle) {
                for (int i = threadIdx.x; i < count * QUADS; i += THREADS) store(x + 4 * i, load<4>(m.rest + 4 * i));
            } else {
                x = m.rest;
            }
            __syncthreads();
            prepare(m, x, l, by_angle);
            __syncthreads();
            search<QUADS, 4>(x, m.squares, l, packed, code_squares, passes, by_angle ? 1.0f : 2.0f, m.best);
            __syncthreads();
            for (int v = threadIdx.x; v < l; v += THREADS) {
                int code = chosen(m.best[v]);
                own[v] = code;
                m.tokens[v] = max(code, 0);
                none |= code == NO_CHOICE;
            }
        } else {
            // A wrong token must not read past the codebook.
            for (int v = threadIdx.x; v < l; v += THREADS) m.tokens[v] = min(max(own[v], 0), codes - 1);
        }
        __syncthreads();
        spread(m, s, plan, codebook);
        __syncthreads();
        if (with_phi) {
            take_weights(m, phis + s.weight);
            __syncthreads();
            blend<SEARCHES>(m, phis + s.bias, rho);
        } else {
            for (int i = threadIdx.x; i < count * QUADS; i += THREADS) {
                int at = i / QUADS, channel = i % QUADS * 4, row = at / w, col = at - row * w;
                move<SEARCHES>(m, at, channel, load<4>(m.padded + ((row + 1) * (w + 2) + col + 1) * PIXEL + channel));
            }
        }
        if (k + 1 < active) {
            Scale next = ((const Scale*)plan)[k + 1];
            float* to = input + ((u64)image * length + next.input) * C;
            __syncthreads();
            if (next.h == h && next.w == w) {
                for (int i = threadIdx.x; i < count * QUADS; i += THREADS) store(to + 4 * i, load<4>(m.f_hat + 4 * i));
            } else {
                average(m, next, plan, m.f_hat, to);
            }
        }
    }
    if (!f_hat) return;
    none = __syncthreads_or(none);
    for (int i = threadIdx.x; i < count * QUADS; i += THREADS) {
        Channels<4> y = load<4>(m.f_hat + 4 * i);
        if (none)
            for (int k = 0; k < 4; k++) y.v[k] = __int_as_float(0x7fffffff);
        store(f_hat + (u64)image * count * C + 4 * i, y);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) residual_encode(const float* f, int* tokens, const float* codebook,
        const float* packed, const float* code_squares, const float* phis, const int* plan, float* f_hat, float* input, int h,
        int w, int codes, int scales, int active, int length, int passes, int by_angle, int with_phi, float rho) {
    quantize<true>(f, tokens, codebook, packed, code_squares, phis, plan, f_hat, input, h, w, codes, scales, active, length,
                   passes, by_angle, with_phi, rho);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) residual_input(int* tokens, const float* codebook, const float* phis,
        const int* plan, float* input, int h, int w, int codes, int scales, int active, int length, int with_phi, float rho) {
    quantize<false>(nullptr, tokens, codebook, nullptr, nullptr, phis, plan, nullptr, input, h, w, codes, scales, active,
                    length, 0, 0, with_phi, rho);
}
