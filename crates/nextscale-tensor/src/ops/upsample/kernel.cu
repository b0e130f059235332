// Every pixel becomes four, and the way back. A thread takes `N` neighbouring channels of a pixel of the small map.

template <int N, typename T>
__device__ __forceinline__ void take(const T* p, float (&y)[N]) {
    if constexpr (N == 8) load8(p, y);
    else y[0] = to_f32(*p);
}
template <int N, typename T>
__device__ __forceinline__ void put(T* p, const float (&x)[N]) {
    if constexpr (N == 8) store8(p, x);
    else *p = from_f32<T>(x[0]);
}

// Blocks go over the lines of the small map, threads over a line's elements; `row` are a line's elements. The first of the
// four pixels of element i of a line is at element i + (i / c)·c of the large map's line.

template <int N, typename T>
__device__ void repeat(const T* x, T* y, u64 lines, int row, int c) {
    for (u64 line = blockIdx.y; line < lines; line += gridDim.y) {
        for (int i = (blockIdx.x * blockDim.x + threadIdx.x) * N; i < row; i += gridDim.x * blockDim.x * N) {
            float v[N];
            take<N>(x + line * row + i, v);
            T* to = y + line * 4 * row + i + i / c * c;
            put<N>(to, v);
            put<N>(to + c, v);
            put<N>(to + 2 * row, v);
            put<N>(to + 2 * row + c, v);
        }
    }
}

template <int N, typename T>
__device__ void collect(const T* g, T* dx, u64 lines, int row, int c) {
    for (u64 line = blockIdx.y; line < lines; line += gridDim.y) {
        for (int i = (blockIdx.x * blockDim.x + threadIdx.x) * N; i < row; i += gridDim.x * blockDim.x * N) {
            const T* from = g + line * 4 * row + i + i / c * c;
            float a[N], b[N], d[N], e[N];
            take<N>(from, a);
            take<N>(from + c, b);
            take<N>(from + 2 * row, d);
            take<N>(from + 2 * row + c, e);
            for (int j = 0; j < N; j++) a[j] = (a[j] + b[j]) + (d[j] + e[j]);
            put<N>(dx + line * row + i, a);
        }
    }
}

template <typename T>
__device__ void any_repeat(const T* x, T* y, u64 lines, int row, int c) {
    if (c % 8 == 0 && aligned16(x) && aligned16(y)) repeat<8>(x, y, lines, row, c);
    else repeat<1>(x, y, lines, row, c);
}
template <typename T>
__device__ void any_collect(const T* g, T* dx, u64 lines, int row, int c) {
    if (c % 8 == 0 && aligned16(g) && aligned16(dx)) collect<8>(g, dx, lines, row, c);
    else collect<1>(g, dx, lines, row, c);
}

extern "C" __global__ void repeat_f32(const float* x, float* y, u64 lines, int row, int c) { any_repeat(x, y, lines, row, c); }
extern "C" __global__ void repeat_bf16(const bf16* x, bf16* y, u64 lines, int row, int c) { any_repeat(x, y, lines, row, c); }
extern "C" __global__ void repeat_f16(const f16* x, f16* y, u64 lines, int row, int c) { any_repeat(x, y, lines, row, c); }
extern "C" __global__ void collect_f32(const float* g, float* dx, u64 lines, int row, int c) { any_collect(g, dx, lines, row, c); }
extern "C" __global__ void collect_bf16(const bf16* g, bf16* dx, u64 lines, int row, int c) { any_collect(g, dx, lines, row, c); }
extern "C" __global__ void collect_f16(const f16* g, f16* dx, u64 lines, int row, int c) { any_collect(g, dx, lines, row, c); }
