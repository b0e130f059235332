// The gradient of the weights of 3×3 convolutions with stride 1 as products on Hopper's matrix unit, patches never stored.
//
// dw[o, tap, i] is the sum over all positions of dy[o] and x[i] at the place that the tap sees. A block has 64 inputs, 80 outputs and
// all nine taps, 46,080 sums that stay in registers to the end, and goes over its share of the tiles of 8×16 positions.
// Of x a tile needs 10×18 positions, which nine taps read at nine places. In shared memory channels of a position are side by side,
// as in memory; the unit reads both operands transposed, sixteen positions of a row at a time.
//
// Each block leaves its sums in memory of its own, and a second kernel adds those of all shares in the order of the shares.
//
// Threads: four warps fetch; three groups of four warps multiply, a row of the kernel's taps each.

constexpr int ROWS = 8;
constexpr int COLUMNS = 16;
constexpr int SEEN_COLUMNS = COLUMNS + 2;
constexpr int SEEN = (ROWS + 2) * SEEN_COLUMNS;
constexpr int INPUTS = 64;
constexpr int OUTPUTS = 80;
constexpr int TAPS = 9;
constexpr int THREADS = 512;
constexpr int FETCHERS = 128;

// Planes with a gap, so that the pieces of a position go to different banks.
constexpr int X_PIECES = INPUTS / 8, X_PLANE = SEEN * 16 + 16;
constexpr int Y_PIECES = OUTPUTS / 8, Y_PLANE = ROWS * COLUMNS * 16 + 16;
constexpr int X_BYTES = X_PIECES * X_PLANE;
constexpr int SLOT_BYTES = X_BYTES + Y_PIECES * Y_PLANE;
constexpr int SLOTS = 5;
constexpr int BARRIERS_AT = SLOTS * SLOT_BYTES;
static_assert(BARRIERS_AT + 2 * SLOTS * 8 == SHARED, "what a launch asks for");
// Tiles that are on their way while the next is asked for.
constexpr int LATE = 2;

// What a launch computes, in so many shares of the tiles.
struct Extents {
    int batch, height, width, inputs, outputs, shares;
};

// What a block computes: its share, its first input and its first output. Blocks of one share are neighbours, as they read the same
// positions.
struct Part {
    int share, input, output;
    __device__ __forceinline__ explicit Part(Extents e) {
        int index = blockIdx.x, chunks = (e.inputs + INPUTS - 1) / INPUTS;
        input = index % chunks * INPUTS;
        index /= chunks;
        output = index % (e.outputs / OUTPUTS) * OUTPUTS;
        share = index / (e.outputs / OUTPUTS);
    }
};

__device__ __forceinline__ int tiles_down(Extents e) { return (e.height + ROWS - 1) / ROWS; }
__device__ __forceinline__ int tiles_across(Extents e) { return (e.width + COLUMNS - 1) / COLUMNS; }
__device__ __forceinline__ int tile_count(Extents e) { return e.batch * tiles_down(e) * tiles_across(e); }

// dw += the shares' sums.
extern "C" __global__ void add_shares(const float* sums, float* dw, int shares, int count) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        float sum = 0;
        for (int s = 0; s < shares; s++) sum += sums[(u64)s * count + i];
        dw[i] += sum;
    }
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// c += a * b for 64 inputs, 80 outputs and 16 positions, both operands transposed.
#define PRODUCT(TYPE, PTX)                                                                                                  \
    __device__ __forceinline__ void product(TYPE, float (&c)[10][4], u64 a, u64 b) {                                       \
        asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0; "                                                               \
            "wgmma.mma_async.sync.aligned.m64n80k16.f32." PTX "." PTX " {"                                                 \
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"           \
            "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39}, %40, %41, p, 1, 1, 1, 1; }"                             \
            : TWENTY(c, 0), TWENTY(c, 5)                                                                                   \
            : "l"(a), "l"(b));                                                                                             \
    }
PRODUCT(bf16, "bf16")
PRODUCT(f16, "f16")

// Warps 0 to 3: both operands of every tile of the share.
template <typename T>
__device__ __forceinline__ void fetch(const T* x, const T* dy, Extents e, u32 shared, u32 full, u32 free) {
    Part part(e);
    int thread = threadIdx.x, x_piece = thread % X_PIECES;
    bool wanted = part.input + x_piece * 8 < e.inputs;
    Ring ring, told;
    int late = 0;
    auto tell = [&]() {
        publish();
        barrier_arrive(full + told.slot * 8);
        told.next<SLOTS>();
    };
    for (int tile = part.share, all = tile_count(e); tile < all; tile += e.shares) {
        int column = tile % tiles_across(e) * COLUMNS, rest = tile / tiles_across(e);
        int row = rest % tiles_down(e) * ROWS;
        u64 image = (u64)(rest / tiles_down(e)) * e.height * e.width;
        barrier_wait(free + ring.slot * 8, ring.phase ^ 1);
        u32 to = shared + ring.slot * SLOT_BYTES;
        const T* inputs = x + image * e.inputs + part.input + x_piece * 8;
#pragma unroll 4
        for (int seen = thread / X_PIECES; seen < SEEN; seen += FETCHERS / X_PIECES) {
            int r = seen / SEEN_COLUMNS, py = row - 1 + r, px = column - 1 + seen - r * SEEN_COLUMNS;
            bool there = wanted && py >= 0 && py < e.height && px >= 0 && px < e.width;
            copy_16(to + x_piece * X_PLANE + seen * 16, there ? inputs + (py * e.width + px) * e.inputs : x, there);
        }
        to += X_BYTES;
        const T* gradients = dy + image * e.outputs + part.output;
#pragma unroll 5
        for (int i = thread; i < ROWS * COLUMNS * Y_PIECES; i += FETCHERS) {
            int position = i / Y_PIECES, piece = i - position * Y_PIECES;
            int py = row + position / COLUMNS, px = column + position % COLUMNS;
            bool there = py < e.height && px < e.width;
            copy_16(to + piece * Y_PLANE + position * 16, there ? gradients + (py * e.width + px) * e.outputs + piece * 8 : dy, there);
        }
        copies_begin();
        ring.next<SLOTS>();
        if (late == LATE) {
            copies_wait<LATE>();
            tell();
        } else {
            late++;
        }
    }
    copies_wait<0>();
    for (; late > 0; late--) tell();
}

// A group that multiplies: the row `group` of taps. A thread has inputs g and g + 8 of its warp's 16 and outputs 8j + 2t and 8j + 2t + 1,
// with g = lane / 4 and t = lane % 4.
template <typename T>
__device__ __forceinline__ void multiply(float* sums, Extents e, u32 shared, u32 full, u32 free) {
    Part part(e);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128 - 1;
    float c[3][10][4];
#pragma unroll
    for (int tap = 0; tap < 3; tap++)
#pragma unroll
        for (int j = 0; j < 10; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) c[tap][j][i] = 0;
    Ring ring;
    int used = -1;
#pragma unroll 1
    for (int tile = part.share, all = tile_count(e); tile < all; tile += e.shares) {
        barrier_wait(full + ring.slot * 8, ring.phase);
        u32 at = shared + ring.slot * SLOT_BYTES;
        u64 a = described(at + group * SEEN_COLUMNS * 16, 128, X_PLANE), b = described(at + X_BYTES, 128, Y_PLANE);
        products_begin();
#pragma unroll
        for (int row = 0; row < ROWS; row++)
#pragma unroll
            for (int tap = 0; tap < 3; tap++) product(T{}, c[tap], a + row * SEEN_COLUMNS + tap, b + row * COLUMNS);
        products_go();
        products_wait<1>();
        if (lane == 0 && used >= 0) barrier_arrive(free + used * 8);
        used = ring.slot;
        ring.next<SLOTS>();
    }
    products_wait<0>();
    int first = part.input + warp * 16 + (lane >> 2), output = part.output + (lane & 3) * 2, per = TAPS * e.inputs;
    float* to = sums + ((u64)part.share * e.outputs + output) * per + group * 3 * e.inputs + first;
#pragma unroll
    for (int j = 0; j < 10; j++, to += 8 * per) {
        // Opaque: places that are computed ahead find no registers.
        asm volatile("" : "+l"(to)::"memory");
#pragma unroll
        for (int tap = 0; tap < 3; tap++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                asm volatile("" : "+f"(c[tap][j][i])::"memory");
                if (first + (i >> 1) * 8 < e.inputs) to[(i & 1) * per + tap * e.inputs + (i >> 1) * 8] = c[tap][j][i];
            }
    }
}

template <typename T> __device__ __forceinline__ void sum_tiles(const T* x, const T* dy, float* sums, Extents e) {
    extern __shared__ __align__(1024) char memory[];
    u32 shared = shared_address(memory), full = shared + BARRIERS_AT, free = full + SLOTS * 8;
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; i++) {
            barrier_make(full + i * 8, FETCHERS);
            barrier_make(free + i * 8, (THREADS - FETCHERS) / 32);
        }
        barriers_made();
    }
    __syncthreads();
    // Registers go from those that fetch to those that multiply; all that may be shared out are the launch's 512 × 128.
    if (threadIdx.x < FETCHERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
        fetch(x, dy, e, shared, full, free);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 152;");
        multiply<T>(sums, e, shared, full, free);
    }
}
#define SUM_TILES(T) sum_tiles<T>(x, dy, sums, Extents{batch, height, width, inputs, outputs, shares})
#else
// Never launched elsewhere.
#define SUM_TILES(T) __trap()
#endif

#define WEIGHTS(T)                                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) weight_gradient_##T(const T* x, const T* dy, float* sums,     \
        int batch, int height, int width, int inputs, int outputs, int shares) {                                           \
        SUM_TILES(T);                                                                                                      \
    }
WEIGHTS(bf16)
WEIGHTS(f16)
