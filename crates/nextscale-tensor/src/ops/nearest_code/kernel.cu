// Codes are packed once for all vectors; then every block searches for a share of the vectors.

// A warp packs a code of `c` channels into `quads` fours: normalised where `by_angle`, and then with a square of zero.
extern "C" __global__ void pack_codes(const float* codes, float* packed, float* squares, int v, int c, int quads, int padded,
                                      int by_angle) {
    int code = (int)(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x & 31;
    if (code >= padded) return;
    const float* row = codes + (u64)code * c;
    Square square;
    for (int k = lane; k < (c + 31) / 32 * 32; k += 32) square.add(code < v && k < c ? row[k] : 0.0f);
    float total = square.total(), by = by_angle ? length(total) : 1.0f;
    for (int k = lane; k < 4 * quads; k += 32) {
        float x = code < v && k < c ? row[k] : 0.0f;
        packed[(((u64)(code / 32) * quads + k / 4) * 32 + code % 32) * 4 + k % 4] = by_angle ? __fdiv_rn(x, by) : x;
    }
    if (lane == 0) squares[code] = code >= v ? __uint_as_float(0x7f800000u) : square_of(total, by_angle);
}

// A block's vectors from `first`, to rows of `width` channels in shared memory, and their squares: a warp a vector.
__device__ __forceinline__ void take(const float* x, u64 first, int m, int c, int width, bool by_angle, float* rows,
                                     float* squares) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    for (int v = warp; v < m; v += blockDim.x >> 5) {
        const float* row = x + (first + v) * c;
        Square square;
        for (int k = lane; k < (c + 31) / 32 * 32; k += 32) square.add(k < c ? row[k] : 0.0f);
        float total = square.total(), by = by_angle ? length(total) : 1.0f;
        for (int k = lane; k < width; k += 32) {
            float value = k < c ? row[k] : 0.0f;
            rows[v * width + k] = by_angle ? __fdiv_rn(value, by) : value;
        }
        if (lane == 0) squares[v] = square_of(total, by_angle);
    }
}

extern __shared__ float shared[];

template <int QUADS, int EACH>
__device__ __forceinline__ void nearest(const float* x, const float* packed, const float* code_squares, int* y, int c,
                                        int share, int passes, int by_angle, u64 total) {
    u64* best = (u64*)shared;                    // [share]
    float* rows = (float*)(best + (share + 1) / 2 * 2);  // [share][4·QUADS]
    float* squares = rows + share * 4 * QUADS;   // [share]
    u64 first = blockIdx.x * (u64)share;
    int m = (int)(total - first < share ? total - first : share);
    take(x, first, m, c, 4 * QUADS, by_angle, rows, squares);
    for (int v = threadIdx.x; v < m; v += SEARCH_THREADS) best[v] = NO_CODE;
    __syncthreads();
    search<QUADS, EACH>(rows, squares, m, packed, code_squares, passes, by_angle ? 1.0f : 2.0f, best);
    __syncthreads();
    for (int v = threadIdx.x; v < m; v += SEARCH_THREADS) y[first + v] = chosen(best[v]);
}

// Up to 32 channels.
extern "C" __global__ void __launch_bounds__(SEARCH_THREADS, 1) nearest_32(const float* x, const float* packed,
        const float* code_squares, int* y, int c, int share, int passes, int by_angle, u64 total) {
    nearest<8, 4>(x, packed, code_squares, y, c, share, passes, by_angle, total);
}
// Up to 64.
extern "C" __global__ void __launch_bounds__(SEARCH_THREADS, 1) nearest_64(const float* x, const float* packed,
        const float* code_squares, int* y, int c, int share, int passes, int by_angle, u64 total) {
    nearest<16, 2>(x, packed, code_squares, y, c, share, passes, by_angle, total);
}

// Any number: a thread goes through every 256th code for eight vectors. The CPU's sums begin anew every 288 terms.
#define ROWS 8
#define RUN 288
extern "C" __global__ void __launch_bounds__(SEARCH_THREADS, 2) nearest_wide(const float* x, const float* packed,
        const float* code_squares, int* y, int c, int quads, int codes, int by_angle, u64 total) {
    u64* best = (u64*)shared;              // [ROWS]
    float* squares = (float*)(best + ROWS);  // [ROWS]
    float* rows = squares + ROWS;          // [ROWS][4·quads]
    u64 first = blockIdx.x * (u64)ROWS;
    int m = (int)(total - first < ROWS ? total - first : ROWS);
    take(x, first, m, c, 4 * quads, by_angle, rows, squares);
    for (int i = threadIdx.x + m * 4 * quads; i < ROWS * 4 * quads; i += SEARCH_THREADS) rows[i] = 0.0f;
    if (threadIdx.x < ROWS) {
        best[threadIdx.x] = NO_CODE;
        if (threadIdx.x >= m) squares[threadIdx.x] = 0.0f;
    }
    __syncthreads();
    float factor = by_angle ? 1.0f : 2.0f;
    u64 own[ROWS];
    for (int r = 0; r < ROWS; r++) own[r] = NO_CODE;
    for (int code = threadIdx.x; code < codes; code += SEARCH_THREADS) {
        float sum[ROWS] = {}, dot[ROWS] = {};
        const Words4* from = (const Words4*)packed + (u64)(code / 32) * quads * 32 + code % 32;
        for (int q = 0; q < quads; q++) {
            Words4 e = from[q * 32];
            if (q > 0 && q % (RUN / 4) == 0)
                for (int r = 0; r < ROWS; r++) {
                    sum[r] = __fadd_rn(sum[r], dot[r]);
                    dot[r] = 0.0f;
                }
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                Words4 w = ((const Words4*)(rows + r * 4 * quads))[q];
                for (int k = 0; k < 4; k++)
                    dot[r] = __fmaf_rn(__uint_as_float(w.w[k]), __uint_as_float(e.w[k]), dot[r]);
            }
        }
        float square = code_squares[code];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float cost = __fmaf_rn(-factor, __fadd_rn(sum[r], dot[r]), __fadd_rn(squares[r], square));
            u64 mine = (u64)ordered(cost) << 32 | (u32)code;
            own[r] = mine < own[r] ? mine : own[r];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        u64 least = own[r];
        for (int d = 16; d > 0; d >>= 1) {
            u64 other = __shfl_xor_sync(0xffffffffu, least, d);
            least = other < least ? other : least;
        }
        if ((threadIdx.x & 31) == 0) atomicMin(best + r, least);
    }
    __syncthreads();
    if (threadIdx.x < m) y[first + threadIdx.x] = chosen(best[threadIdx.x]);
}
