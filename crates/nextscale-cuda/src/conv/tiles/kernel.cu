// 3×3 convolutions with stride 1 as products on Hopper's matrix unit, patches never stored.
//
// A block computes 16×16 positions of one image and 160 outputs at a time, and goes on with the next such tile. The inner
// dimension goes by chunks of 32 input channels; of a chunk the 18×18 positions that the tile sees lie in shared memory
// once, and the nine taps read them at nine places. So an input is fetched 1.27 times and not 9.
//
// Both operands lie in shared memory as planes (`planes.cuh`), of positions and of outputs.
//
// Threads: warps 0 to 2 fetch inputs, normalise them where asked, and store them; warp 3 has weights copied, which were packed in the
// order of their use; two groups of four warps multiply, each 8 rows of 16 positions. (On an H200 it changed nothing to keep
// one group some steps behind the other, so that one multiplies while the other stores.)

constexpr int SIDE = 16;
constexpr int HALO = SIDE + 2;
constexpr int OUTPUTS = 160;
constexpr int CHUNK = 32;
constexpr int PIECES = CHUNK / 8;
constexpr int TAPS = 9;
constexpr int THREADS = 384;

constexpr int SEEN = HALO * HALO;
constexpr int INPUT_PLANE = SEEN * 16;
constexpr int INPUT_BYTES = PIECES * INPUT_PLANE;
constexpr int WEIGHT_PLANE = OUTPUTS * 16;
constexpr int WEIGHT_BYTES = PIECES * WEIGHT_PLANE;
constexpr int INPUT_SLOTS = 3;
constexpr int WEIGHT_SLOTS = 8;
// A row of results waiting to be stored, with a gap against bank conflicts; 16 rows a warp and half.
constexpr int ROW_BYTES = OUTPUTS * 2 + 16;
constexpr int STAGE_BYTES = 16 * ROW_BYTES;
constexpr int FETCHERS = 3;
constexpr int CONSUMER_WARPS = 8;

constexpr int WEIGHTS_AT = INPUT_SLOTS * INPUT_BYTES;
constexpr int STAGES_AT = WEIGHTS_AT + WEIGHT_SLOTS * WEIGHT_BYTES;
constexpr int BARRIERS_AT = STAGES_AT + CONSUMER_WARPS * 2 * STAGE_BYTES;
static_assert(BARRIERS_AT + 2 * (INPUT_SLOTS + WEIGHT_SLOTS) * 8 == SHARED, "what a launch asks for");

// What a launch computes.
struct Extents {
    int batch, height, width, inputs, outputs;
};

// One tile: an image, its first position, its first output.
struct Tile {
    int image, y, x, output;
    __device__ __forceinline__ Tile(int index, Extents e) {
        int blocks = e.outputs / OUTPUTS, across = (e.width + SIDE - 1) / SIDE, down = (e.height + SIDE - 1) / SIDE;
        // Tiles of the same positions are neighbours, so that their inputs are still near.
        output = index % blocks * OUTPUTS;
        index /= blocks;
        x = index % across * SIDE;
        index /= across;
        y = index % down * SIDE;
        image = index / down;
    }
};

__device__ __forceinline__ u64 tile_count(Extents e) {
    return (u64)e.batch * ((e.height + SIDE - 1) / SIDE) * ((e.width + SIDE - 1) / SIDE) * (e.outputs / OUTPUTS);
}

// Weights in the order of their use: [blocks of outputs, chunks, taps, pieces, outputs of a block, 8]. With `turned` those of
// the gradient of x: taps in reverse, inputs and outputs exchanged (`inputs` and `outputs` are those of the packed weights).
template <typename T> __device__ void pack_weights(const T* w, T* packed, int inputs, int outputs, int turned) {
    int count = inputs / 8 * TAPS * outputs;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        int rest = i;
        int o = rest % OUTPUTS;
        rest /= OUTPUTS;
        int piece = rest % PIECES;
        rest /= PIECES;
        int tap = rest % TAPS;
        rest /= TAPS;
        int chunk = rest % (inputs / CHUNK);
        o += rest / (inputs / CHUNK) * OUTPUTS;
        int c = chunk * CHUNK + piece * 8;
        if (turned) {
            const T* from = w + ((u64)c * TAPS + TAPS - 1 - tap) * outputs + o;
            Words4 v;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 low = from[(u64)(2 * j) * TAPS * outputs].bits, high = from[(u64)(2 * j + 1) * TAPS * outputs].bits;
                v.w[j] = low | high << 16;
            }
            ((Words4*)packed)[i] = v;
        } else {
            ((Words4*)packed)[i] = *(const Words4*)(w + ((u64)o * TAPS + tap) * inputs + c);
        }
    }
}

// What a channel of a sample is multiplied by and what is added to it, from the groups' mean and 1/deviation [samples, groups].
extern "C" __global__ void norm_table(const float2* moments, const float* gamma, const float* beta, float2* table, int channels,
    int groups, int count) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        int c = i % channels;
        float2 m = moments[i / channels * groups + c / (channels / groups)];
        float scale = m.y * gamma[c];
        table[i] = make_float2(scale, fmaf(-m.x, scale, beta[c]));
    }
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// c (+)= a * b for 64 positions, an inner dimension of 16 and 160 outputs.
#define PRODUCT(TYPE, PTX)                                                                                                  \
    __device__ __forceinline__ void product(TYPE, float (&c)[20][4], u64 a, u64 b, int add) {                               \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %82, 0; "                                                             \
            "wgmma.mma_async.sync.aligned.m64n160k16.f32." PTX "." PTX " {"                                                \
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"           \
            "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,"         \
            "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,"         \
            "%77,%78,%79}, %80, %81, p, 1, 1, 0, 0; }"                                                                     \
            : TWENTY(c, 0), TWENTY(c, 5), TWENTY(c, 10), TWENTY(c, 15)                                                     \
            : "l"(a), "l"(b), "r"(add));                                                                                   \
    }
PRODUCT(bf16, "bf16")
PRODUCT(f16, "f16")

__device__ __forceinline__ void unpack(bf16, u32 w, float& low, float& high) {
    low = __uint_as_float(w << 16);
    high = __uint_as_float(w & 0xffff0000u);
}
__device__ __forceinline__ void unpack(f16, u32 w, float& low, float& high) {
    f16 l, h;
    l.bits = (u16)w;
    h.bits = (u16)(w >> 16);
    low = to_f32(l);
    high = to_f32(h);
}

// SiLU by the hardware's power of two and reciprocal.
__device__ __forceinline__ float silu(float z) {
    constexpr float LOG2_E = 1.4426950408889634f;
    float power, y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(z * -LOG2_E));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + power));
    return z * y;
}

// Barriers of the rings: what is full and what may be filled again.
struct Barriers {
    u32 at;
    __device__ __forceinline__ u32 input_full(int slot) const { return at + slot * 8; }
    __device__ __forceinline__ u32 input_free(int slot) const { return at + (INPUT_SLOTS + slot) * 8; }
    __device__ __forceinline__ u32 weight_full(int slot) const { return at + (2 * INPUT_SLOTS + slot) * 8; }
    __device__ __forceinline__ u32 weight_free(int slot) const { return at + (2 * INPUT_SLOTS + WEIGHT_SLOTS + slot) * 8; }
};

// Warps 0 to 2: the inputs of every chunk of every tile. A lane has one piece of every eighth position; while it normalises and
// stores a few, the next few are on their way.
template <typename T, bool NORM>
__device__ __forceinline__ void fetch_inputs(const T* x, const float2* table, Extents e, u32 shared, Barriers barriers) {
    constexpr int GROUPS = (SEEN + 7) / 8, MINE = (GROUPS + FETCHERS - 1) / FETCHERS, FEW = 3;
    // Even, so that a chunk begins with the registers that the one before began with.
    constexpr int TIMES = (MINE + FEW - 1) / FEW / 2 * 2 + 2 * ((MINE + FEW - 1) / FEW % 2);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, piece = lane >> 3, chunks = e.inputs / CHUNK;
    Ring ring;
    for (u64 index = blockIdx.x, all = tile_count(e); index < all; index += gridDim.x) {
        Tile tile((int)index, e);
        int from[MINE];
        // Opaque, here and below: what could be kept for all tiles or chunks finds no registers.
        int first = warp * 8 + (lane & 7);
        asm volatile("" : "+r"(first));
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            int seen = first + i * FETCHERS * 8;
            int y = tile.y - 1 + seen / HALO, x = tile.x - 1 + seen % HALO;
            bool there = seen < SEEN && y >= 0 && y < e.height && x >= 0 && x < e.width;
            from[i] = there ? (y * e.width + x) * e.inputs + piece * 8 : -1;
        }
        const T* image = x + (u64)tile.image * e.height * e.width * e.inputs;
        auto fetch = [&](Words4(&v)[FEW], int begin, int chunk) {
#pragma unroll
            for (int i = 0; i < FEW; i++) {
                if (begin + i >= MINE) continue;
                int at = from[begin + i];
                asm volatile("" : "+r"(at));
                if (at >= 0) v[i] = *(const Words4*)(image + at + chunk * CHUNK);
                else v[i].w[0] = v[i].w[1] = v[i].w[2] = v[i].w[3] = 0;
            }
        };
        Words4 v[2][FEW];
        fetch(v[0], 0, 0);
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++) {
            float scale[8], shift[8];
            if constexpr (NORM) {
                const float4* row = (const float4*)(table + (u64)tile.image * e.inputs + chunk * CHUNK + piece * 8);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    float4 two = row[j];
                    scale[2 * j] = two.x;
                    shift[2 * j] = two.y;
                    scale[2 * j + 1] = two.z;
                    shift[2 * j + 1] = two.w;
                }
            }
            barrier_wait(barriers.input_free(ring.slot), ring.phase ^ 1);
            u32 to = shared + ring.slot * INPUT_BYTES + piece * INPUT_PLANE + (warp * 8 + (lane & 7)) * 16;
#pragma unroll
            for (int time = 0; time < TIMES; time++) {
                Words4(&now)[FEW] = v[time % 2];
                if (time + 1 < TIMES) fetch(v[(time + 1) % 2], (time + 1) * FEW, chunk);
                else if (chunk + 1 < chunks) fetch(v[0], 0, chunk + 1);
#pragma unroll
                for (int i = 0; i < FEW; i++) {
                    int mine = time * FEW + i;
                    if (mine >= MINE) continue;
                    if constexpr (NORM) {
                        // Zeros around the image are zeros behind the norm; a branch here would keep pieces apart.
                        u32 there = from[mine] >= 0 ? 0xffffffffu : 0;
#pragma unroll
                        for (int j = 0; j < 4; j++) {
                            float low, high;
                            unpack(T{}, now[i].w[j], low, high);
                            low = silu(fmaf(low, scale[2 * j], shift[2 * j]));
                            high = silu(fmaf(high, scale[2 * j + 1], shift[2 * j + 1]));
                            now[i].w[j] = pack2<T>(low, high) & there;
                        }
                    }
                    if ((warp + mine * FETCHERS) * 8 + (lane & 7) < SEEN)
                        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + mine * FETCHERS * 128),
                                     "r"(now[i].w[0]), "r"(now[i].w[1]), "r"(now[i].w[2]), "r"(now[i].w[3])
                                     : "memory");
                }
            }
            publish();
            __syncwarp();
            if (lane == 0) barrier_arrive(barriers.input_full(ring.slot));
            ring.next<INPUT_SLOTS>();
        }
    }
}

// Warp 3, one lane: the weights of every step.
template <typename T> __device__ __forceinline__ void fetch_weights(const T* packed, Extents e, u32 shared, Barriers barriers) {
    if (threadIdx.x & 31) return;
    Ring ring;
    int steps = e.inputs / CHUNK * TAPS;
    for (u64 index = blockIdx.x, all = tile_count(e); index < all; index += gridDim.x) {
        Tile tile((int)index, e);
        const char* from = (const char*)packed + (u64)(tile.output / OUTPUTS) * steps * WEIGHT_BYTES;
        for (int step = 0; step < steps; step++, from += WEIGHT_BYTES) {
            barrier_wait(barriers.weight_free(ring.slot), ring.phase ^ 1);
            u32 full = barriers.weight_full(ring.slot);
            barrier_expect(full, WEIGHT_BYTES);
            copy_bytes(shared + WEIGHTS_AT + ring.slot * WEIGHT_BYTES, from, WEIGHT_BYTES, full);
            ring.next<WEIGHT_SLOTS>();
        }
    }
}

// The groups that multiply. A warp has rows 2w and 2w + 1 of its group's 8, in two halves of 8 positions; a thread has position
// g of both and outputs 8j + 2t and 8j + 2t + 1, with g = lane / 4 and t = lane % 4.
template <typename T>
__device__ __forceinline__ void multiply(const float* bias, const T* residual, T* y, Extents e, u32 shared, char* memory,
                                         Barriers barriers) {
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128 - 1;
    int g = lane >> 2, t = lane & 3;
    constexpr int ROW_PIECES = OUTPUTS / 8, TIMES = 16 * ROW_PIECES / 32;
    char* stage = memory + STAGES_AT + (group * 4 + warp) * 2 * STAGE_BYTES;
    u32 stage_at = shared + STAGES_AT + (group * 4 + warp) * 2 * STAGE_BYTES;
    Ring inputs, weights;
    // The slots of the last step, to be given back when it is done.
    int used = -1, read = -1;

    auto give_back = [&]() {
        if (lane == 0) {
            if (used >= 0) barrier_arrive(barriers.weight_free(used));
            if (read >= 0) barrier_arrive(barriers.input_free(read));
        }
        used = read = -1;
    };
    for (u64 index = blockIdx.x, all = tile_count(e); index < all; index += gridDim.x) {
        Tile tile((int)index, e);
        u64 first = (u64)tile.image * e.height * e.width * e.outputs + tile.output;
        // Where the i-th piece that a lane copies is: row of the half's 16 and place in the row; and in y, or -1.
        auto place = [&](int half, int i, int& row, int& piece) -> int {
            int at = i * 32 + lane;
            row = at / ROW_PIECES;
            piece = at % ROW_PIECES;
            int py = tile.y + group * 8 + warp * 2 + (row >> 3), px = tile.x + half * 8 + (row & 7);
            return py < e.height && px < e.width ? (py * e.width + px) * e.outputs + piece * 8 : -1;
        };
        if (residual) {
            // Loops are not unrolled here, or places are computed once for all and find no registers.
#pragma unroll 1
            for (int half = 0; half < 2; half++)
#pragma unroll 1
                for (int i = 0; i < TIMES; i++) {
                    int row, piece, at = place(half, i, row, piece);
                    if (at >= 0)
                        copy_16(stage_at + half * STAGE_BYTES + row * ROW_BYTES + piece * 16, residual + first + at, true);
                }
            copies_begin();
        }

        float c[2][20][4];
        int begun = 0;
#pragma unroll 1
        for (int chunk = 0; chunk < e.inputs / CHUNK; chunk++) {
            barrier_wait(barriers.input_full(inputs.slot), inputs.phase);
            u32 input = shared + inputs.slot * INPUT_BYTES + group * 8 * HALO * 16;
#pragma unroll 1
            for (int tap = 0; tap < TAPS; tap++) {
                barrier_wait(barriers.weight_full(weights.slot), weights.phase);
                int down = tap * 11 >> 5, across = tap - 3 * down;
                u64 a = described(input + (down * HALO + across) * 16, INPUT_PLANE, HALO * 16);
                u64 b = described(shared + WEIGHTS_AT + weights.slot * WEIGHT_BYTES, WEIGHT_PLANE, 128);
                products_begin();
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    product(T{}, c[0], a + k * (2 * INPUT_PLANE >> 4), b + k * (2 * WEIGHT_PLANE >> 4), begun | k);
                    product(T{}, c[1], a + k * (2 * INPUT_PLANE >> 4) + 8, b + k * (2 * WEIGHT_PLANE >> 4), begun | k);
                }
                products_go();
                begun = 1;
                products_wait<1>();
                give_back();
                used = weights.slot;
                if (tap == TAPS - 1) read = inputs.slot;
                weights.next<WEIGHT_SLOTS>();
            }
            inputs.next<INPUT_SLOTS>();
        }
        products_wait<0>();
        give_back();
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < 20; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) asm volatile("" : "+f"(c[half][j][i])::"memory");

        if (residual) copies_wait<0>();
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 20; j++) {
            float2 b = bias ? *(const float2*)(bias + tile.output + j * 8 + 2 * t) : make_float2(0, 0);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    u32* at = (u32*)(stage + half * STAGE_BYTES + (r * 8 + g) * ROW_BYTES + j * 16 + t * 4);
                    float low = c[half][j][2 * r] + b.x, high = c[half][j][2 * r + 1] + b.y;
                    if (residual) {
                        float more, still;
                        unpack(T{}, *at, more, still);
                        low += more;
                        high += still;
                    }
                    *at = pack2<T>(low, high);
                }
        }
        __syncwarp();
#pragma unroll 1
        for (int half = 0; half < 2; half++)
#pragma unroll 1
            for (int i = 0; i < TIMES; i++) {
                int row, piece, at = place(half, i, row, piece);
                if (at >= 0)
                    *(Words4*)(y + first + at) = *(const Words4*)(stage + half * STAGE_BYTES + row * ROW_BYTES + piece * 16);
            }
        __syncwarp();
    }
}

template <typename T, bool NORM>
__device__ __forceinline__ void convolve(const T* x, const float2* table, const T* packed, const float* bias, const T* residual,
                                         T* y, Extents e) {
    extern __shared__ __align__(1024) char memory[];
    u32 shared = shared_address(memory);
    Barriers barriers{shared + BARRIERS_AT};
    if (threadIdx.x == 0) {
        for (int i = 0; i < INPUT_SLOTS; i++) {
            barrier_make(barriers.input_full(i), FETCHERS);
            barrier_make(barriers.input_free(i), CONSUMER_WARPS);
        }
        for (int i = 0; i < WEIGHT_SLOTS; i++) {
            barrier_make(barriers.weight_full(i), 1);
            barrier_make(barriers.weight_free(i), CONSUMER_WARPS);
        }
        barriers_made();
    }
    __syncthreads();
    // Registers go from those that fetch to those that multiply; all that may be shared out are the launch's 384 × 168.
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 120;");
        if (threadIdx.x < FETCHERS * 32) fetch_inputs<T, NORM>(x, table, e, shared, barriers);
        else fetch_weights(packed, e, shared, barriers);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 192;");
        multiply(bias, residual, y, e, shared, memory, barriers);
    }
}
#define CONVOLVE(T, NORM)                                                                                                  \
    convolve<T, NORM>(x, table, packed, bias, residual, y, Extents{batch, height, width, inputs, outputs})
#else
// Never launched elsewhere.
#define CONVOLVE(T, NORM) __trap()
#endif

#define TILES(T)                                                                                                           \
    extern "C" __global__ void pack_weights_##T(const T* w, T* packed, int inputs, int outputs, int turned) {              \
        pack_weights(w, packed, inputs, outputs, turned);                                                                  \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) convolve_##T(const T* x, const float2* table, const T* packed, \
        const float* bias, const T* residual, T* y, int batch, int height, int width, int inputs, int outputs) {           \
        CONVOLVE(T, false);                                                                                                \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) convolve_normed_##T(const T* x, const float2* table,          \
        const T* packed, const float* bias, const T* residual, T* y, int batch, int height, int width, int inputs,         \
        int outputs) {                                                                                                     \
        CONVOLVE(T, true);                                                                                                 \
    }
TILES(bf16)
TILES(f16)
