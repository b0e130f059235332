// What the library's products leave to do in linear layers: the bias of a query/key/value projection, GELU where the
// product can't do it, and column sums.

// Eight columns: in whole vectors with V, else as many as there are.
template <bool V, typename T>
__device__ __forceinline__ void load(const T* p, int count, float (&y)[8]) {
    if (V) return load8(p, y);
    for (int j = 0; j < 8; j++) y[j] = j < count ? to_f32(p[j]) : 0.0f;
}
template <bool V, typename T>
__device__ __forceinline__ void store(T* p, int count, const float (&y)[8]) {
    if (V) return store8(p, y);
    for (int j = 0; j < 8; j++)
        if (j < count) p[j] = from_f32<T>(y[j]);
}

// q, zeros, v: each `third` long.
template <typename T>
__device__ void qkv_bias(const float* q, const float* v, T* y, int third) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= 3 * third) return;
    y[i] = from_f32<T>(i < third ? q[i] : i < 2 * third ? 0.0f : v[i - 2 * third]);
}

// GELU's tanh form is x·s with s = 1/(1 + e^(−2u)), u = √(2/π)(x + 0.044715x³). Rounding to a half type hides what the
// quick exponential is off by.
template <bool quick> __device__ __forceinline__ float gate(float x) {
    float u2 = 1.5957691216f * (x + 0.044715f * x * x * x);
    return quick ? __fdividef(1.0f, 1.0f + __expf(-u2)) : 1.0f / (1.0f + expf(-u2));
}
template <typename T> __device__ __forceinline__ float gelu(float x) { return x * gate<sizeof(T) == 2>(x); }
template <typename T> __device__ __forceinline__ float slope(float x) {
    float s = gate<sizeof(T) == 2>(x);
    return s + x * s * (1.0f - s) * (1.5957691216f * (1.0f + 0.134145f * x * x));
}

template <typename T>
__device__ void gelu_of(const T* z, T* y, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(z) && aligned16(y) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float a[8];
        load8(z + 8 * i, a);
        for (int j = 0; j < 8; j++) a[j] = gelu<T>(a[j]);
        store8(y + 8 * i, a);
    }
    for (u64 i = 8 * full + at; i < n; i += step) y[i] = from_f32<T>(gelu<T>(to_f32(z[i])));
}

// The same in place.
template <typename T>
__device__ void gelu_at(T* z, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(z) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float a[8];
        load8(z + 8 * i, a);
        for (int j = 0; j < 8; j++) a[j] = gelu<T>(a[j]);
        store8(z + 8 * i, a);
    }
    for (u64 i = 8 * full + at; i < n; i += step) z[i] = from_f32<T>(gelu<T>(to_f32(z[i])));
}

// g becomes g·GELU′(z).
template <typename T>
__device__ void gelu_slope(T* g, const T* z, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(g) && aligned16(z) ? n / 8 : 0;
    for (u64 i = at; i < full; i += step) {
        float a[8], b[8];
        load8(z + 8 * i, a);
        load8(g + 8 * i, b);
        for (int j = 0; j < 8; j++) b[j] *= slope<T>(a[j]);
        store8(g + 8 * i, b);
    }
    for (u64 i = 8 * full + at; i < n; i += step) g[i] = from_f32<T>(to_f32(g[i]) * slope<T>(to_f32(z[i])));
}

// A block of threads takes 256 columns, eight a lane, of ROWS rows; its eight warps take rows in turn.
constexpr int ROWS = 256;

// The warps' sums s of their eight columns a lane, added up in order into a row of partial [blocks, width].
__device__ __forceinline__ void block_columns(const float (&s)[8], float* partial, int width) {
    __shared__ float sums[8][8][33];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    for (int j = 0; j < 8; j++) sums[warp][j][lane] = s[j];
    __syncthreads();
    int i = threadIdx.x, c = blockIdx.x * 256 + i;
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[w][i & 7][i >> 3];
    if (c < width) partial[(u64)blockIdx.y * width + c] = total;
}

// Sums of the columns at .. at + width of x [m, n].
template <bool V, typename T>
__device__ __forceinline__ void sum_columns(const T* x, int m, int n, int at, int width, float (&s)[8]) {
    int column = (blockIdx.x * 32 + (threadIdx.x & 31)) * 8;
    if (column >= width) return;
    int first = blockIdx.y * ROWS + (threadIdx.x >> 5), last = min((int)(blockIdx.y + 1) * ROWS, m);
    const T* p = x + (u64)first * n + at + column;
#pragma unroll 8
    for (int r = first; r < last; r += 8, p += (u64)8 * n) {
        float a[8];
        load<V>(p, width - column, a);
        for (int j = 0; j < 8; j++) s[j] += a[j];
    }
}
template <typename T>
__device__ void column_sums(const T* x, float* partial, int m, int n, int at, int width) {
    float s[8] = {};
    if (n % 8 == 0 && at % 8 == 0 && width % 8 == 0 && aligned16(x)) sum_columns<true>(x, m, n, at, width, s);
    else sum_columns<false>(x, m, n, at, width, s);
    block_columns(s, partial, width);
}

// a = GELU(z + bias), z and a [m, n].
template <bool V, typename T>
__device__ __forceinline__ void gelu_rows(const T* z, const float* bias, T* a, int m, int n) {
    int column = (blockIdx.x * 32 + (threadIdx.x & 31)) * 8, count = n - column;
    if (column >= n) return;
    float b[8];
    load<V>(bias + column, count, b);
    int first = blockIdx.y * ROWS + (threadIdx.x >> 5), last = min((int)(blockIdx.y + 1) * ROWS, m);
#pragma unroll 4
    for (int r = first; r < last; r += 8) {
        u64 at = (u64)r * n + column;
        float x[8];
        load<V>(z + at, count, x);
        for (int j = 0; j < 8; j++) x[j] = gelu<T>(x[j] + b[j]);
        store<V>(a + at, count, x);
    }
}
template <typename T>
__device__ void gelu_bias(const T* z, const float* bias, T* a, int m, int n) {
    if (n % 8 == 0 && aligned16(z) && aligned16(a) && aligned16(bias)) gelu_rows<true>(z, bias, a, m, n);
    else gelu_rows<false>(z, bias, a, m, n);
}

// The gradient behind GELU(z + bias) in g becomes that before it, z becomes GELU(z + bias), and partial [blocks, n] gets the
// sums of g's columns.
template <bool V, typename T>
__device__ __forceinline__ void gelu_back_rows(T* g, T* z, const float* bias, int m, int n, float (&s)[8]) {
    int column = (blockIdx.x * 32 + (threadIdx.x & 31)) * 8, count = n - column;
    if (column >= n) return;
    float b[8];
    load<V>(bias + column, count, b);
    int first = blockIdx.y * ROWS + (threadIdx.x >> 5), last = min((int)(blockIdx.y + 1) * ROWS, m);
#pragma unroll 2
    for (int r = first; r < last; r += 8) {
        u64 at = (u64)r * n + column;
        float x[8], d[8];
        load<V>(z + at, count, x);
        load<V>(g + at, count, d);
        for (int j = 0; j < 8; j++) {
            float v = x[j] + b[j], t = gate<sizeof(T) == 2>(v);
            x[j] = v * t;
            d[j] *= t + x[j] * (1.0f - t) * (1.5957691216f * (1.0f + 0.134145f * v * v));
            s[j] += d[j];
        }
        store<V>(z + at, count, x);
        store<V>(g + at, count, d);
    }
}
template <typename T>
__device__ void gelu_bias_backward(T* g, T* z, const float* bias, float* partial, int m, int n) {
    float s[8] = {};
    if (n % 8 == 0 && aligned16(z) && aligned16(g) && aligned16(bias)) gelu_back_rows<true>(g, z, bias, m, n, s);
    else gelu_back_rows<false>(g, z, bias, m, n, s);
    block_columns(s, partial, n);
}

// out += the sum of the rows of partial [rows, width]: 32 columns a block, 32 rows at a time.
extern "C" __global__ void add_rows(const float* partial, float* out, int rows, int width) {
    __shared__ float sums[32][33];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, c = blockIdx.x * 32 + lane;
    float s = 0.0f;
    if (c < width)
        for (int r = warp; r < rows; r += 32) s += partial[(u64)r * width + c];
    sums[warp][lane] = s;
    __syncthreads();
    // Every warp adds up one column.
    s = warp_sum(sums[lane][warp]);
    c = blockIdx.x * 32 + warp;
    if (lane == 0 && c < width) out[c] += s;
}

#define FOR(name, T) \
    extern "C" __global__ void qkv_bias_##name(const float* q, const float* v, T* y, int third) { qkv_bias(q, v, y, third); } \
    extern "C" __global__ void gelu_##name(const T* z, T* y, u64 n) { gelu_of(z, y, n); } \
    extern "C" __global__ void gelu_at_##name(T* z, u64 n) { gelu_at(z, n); } \
    extern "C" __global__ void gelu_slope_##name(T* g, const T* z, u64 n) { gelu_slope(g, z, n); } \
    extern "C" __global__ void column_sums_##name(const T* x, float* partial, int m, int n, int at, int width) { \
        column_sums(x, partial, m, n, at, width); \
    } \
    extern "C" __global__ void gelu_bias_##name(const T* z, const float* bias, T* a, int m, int n) { \
        gelu_bias(z, bias, a, m, n); \
    } \
    extern "C" __global__ void gelu_bias_backward_##name(T* g, T* z, const float* bias, float* partial, int m, int n) { \
        gelu_bias_backward(g, z, bias, partial, m, n); \
    }
FOR(f32, float)
FOR(bf16, bf16)
FOR(f16, f16)
