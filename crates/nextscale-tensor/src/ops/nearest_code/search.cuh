// The search for the nearest of many codes, for blocks of 256 threads. Codes are in registers, a few of them in every
// thread, and vectors pass by in shared memory: one read serves a thread's codes, and a warp asks the others' best before
// it compares its own.
//
// Costs are (|x|² + |e|²) − factor·x·e with factor 2, or with factor 1 and squares of zero for normalised vectors. All
// sums are in the CPU's order, so that both choose the same codes.

#define SEARCH_THREADS 256
#define SEARCH_WARPS (SEARCH_THREADS / 32)
// A cost above every number, code 0.
#define NO_CODE 0xffffffff00000000ull

// Bits of a float that compare as unsigned integers do.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// |x|² of a vector whose channels a warp's lanes have, 32 at a time, zeros past its end: sixteen sums side by side, then
// folded. The result is in all lanes.
struct Square {
    float sum;
    __device__ __forceinline__ Square() : sum(0.0f) {}
    __device__ __forceinline__ void add(float x) {
        float s = __fmul_rn(x, x);
        sum = __fadd_rn(sum, s);
        sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, s, 16));
    }
    __device__ __forceinline__ float total() {
        for (int d = 8; d > 0; d >>= 1) sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, d));
        return __shfl_sync(0xffffffffu, sum, 0);
    }
};

// What is chosen where no cost is a finite number.
#define NO_CHOICE (-1)
// The code of the best so far. Costs of all numbers lie between −∞ and +∞, both left out.
__device__ __forceinline__ int chosen(u64 best) {
    u32 cost = (u32)(best >> 32);
    return cost > 0x007fffffu && cost < 0xff800000u ? (int)(u32)best : NO_CHOICE;
}

// The square that goes into the cost of a vector: that of its length or, for normalised ones, zero; not a number where the
// length is none or infinite.
__device__ __forceinline__ float square_of(float total, bool by_angle) { return by_angle ? total - total : total; }

// What a vector is divided by.
__device__ __forceinline__ float length(float square) { return fmaxf(__fsqrt_rn(square), 1e-12f); }

// `m` vectors of 4·QUADS channels in shared memory, their squares, and the best so far: cost above, code below. Codes are
// packed by groups of 32: for every four channels, 32 codes side by side; their number is a multiple of passes·8·EACH
// groups, squares past the end are infinite. The caller puts barriers around it.
template <int QUADS, int EACH>
__device__ __forceinline__ void search(const float* x, const float* squares, int m, const float* codes,
                                       const float* code_squares, int passes, float factor, u64* best) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int pairs = (m + 1) / 2, start = pairs * warp / SEARCH_WARPS;
    for (int pass = 0; pass < passes; pass++) {
        int group = (pass * SEARCH_WARPS + warp) * EACH;
        float e[EACH][4 * QUADS], square[EACH];
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const Words4* from = (const Words4*)codes + ((u64)(group + j) * QUADS) * 32 + lane;
#pragma unroll
            for (int q = 0; q < QUADS; q++) {
                Words4 w = from[q * 32];
#pragma unroll
                for (int k = 0; k < 4; k++) e[j][4 * q + k] = __uint_as_float(w.w[k]);
            }
            square[j] = code_squares[(group + j) * 32 + lane];
        }
        for (int i = 0; i < pairs; i++) {
            // Warps are spread over the vectors, so that most find a good bound.
            int pair = start + i < pairs ? start + i : start + i - pairs;
            int v[2] = {2 * pair, min(2 * pair + 1, m - 1)};
            float dot[2][EACH] = {};
#pragma unroll
            for (int q = 0; q < QUADS; q++) {
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    Words4 w = ((const Words4*)(x + v[n] * 4 * QUADS))[q];
#pragma unroll
                    for (int k = 0; k < 4; k++)
#pragma unroll
                        for (int j = 0; j < EACH; j++)
                            dot[n][j] = __fmaf_rn(__uint_as_float(w.w[k]), e[j][4 * q + k], dot[n][j]);
                }
            }
#pragma unroll
            for (int n = 0; n < 2; n++) {
                float own = squares[v[n]], least = 0.0f;
#pragma unroll
                for (int j = 0; j < EACH; j++) {
                    dot[n][j] = __fmaf_rn(-factor, dot[n][j], __fadd_rn(own, square[j]));
                    least = j == 0 ? dot[n][0] : fminf(least, dot[n][j]);
                }
                u32 cost = ordered(least);
                u32 bound = ((volatile u32*)best)[2 * v[n] + 1];
                if (!__any_sync(0xffffffffu, cost <= bound)) continue;
                u32 lowest = __reduce_min_sync(0xffffffffu, cost);
                u32 code = 0xffffffffu;
#pragma unroll
                for (int j = EACH - 1; j >= 0; j--)
                    if (ordered(dot[n][j]) == lowest) code = (group + j) * 32 + lane;
                code = __reduce_min_sync(0xffffffffu, code);
                if (lane == 0) atomicMin(best + v[n], (u64)lowest << 32 | code);
            }
        }
    }
}
