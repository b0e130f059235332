// Every pixel becomes four, and the way back. A thread takes a pixel of the small map and `N` neighbouring channels.

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

// The first of the four pixels' elements for element `i` of the small map, whose rows hold `row` elements.
__device__ __forceinline__ u64 first_of_four(u64 i, u32 row, u32 c) {
    u64 line = i / row;
    u32 inside = (u32)(i - line * row), pixel = inside / c;
    return line * 4 * row + pixel * 2 * c + (inside - pixel * c);
}

template <int N, typename T>
__device__ void repeat(const T* x, T* y, u64 n, int row, int c) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n / N; i += (u64)gridDim.x * blockDim.x) {
        float v[N];
        take<N>(x + i * N, v);
        T* to = y + first_of_four(i * N, row, c);
        put<N>(to, v);
        put<N>(to + c, v);
        put<N>(to + 2 * row, v);
        put<N>(to + 2 * row + c, v);
    }
}

template <int N, typename T>
__device__ void collect(const T* g, T* dx, u64 n, int row, int c) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n / N; i += (u64)gridDim.x * blockDim.x) {
        const T* from = g + first_of_four(i * N, row, c);
        float a[N], b[N], d[N], e[N];
        take<N>(from, a);
        take<N>(from + c, b);
        take<N>(from + 2 * row, d);
        take<N>(from + 2 * row + c, e);
        for (int j = 0; j < N; j++) a[j] = (a[j] + b[j]) + (d[j] + e[j]);
        put<N>(dx + i * N, a);
    }
}

template <typename T>
__device__ void any_repeat(const T* x, T* y, u64 n, int row, int c) {
    if (c % 8 == 0 && aligned16(x) && aligned16(y)) repeat<8>(x, y, n, row, c);
    else repeat<1>(x, y, n, row, c);
}
template <typename T>
__device__ void any_collect(const T* g, T* dx, u64 n, int row, int c) {
    if (c % 8 == 0 && aligned16(g) && aligned16(dx)) collect<8>(g, dx, n, row, c);
    else collect<1>(g, dx, n, row, c);
}

extern "C" __global__ void repeat_f32(const float* x, float* y, u64 n, int row, int c) { any_repeat(x, y, n, row, c); }
extern "C" __global__ void repeat_bf16(const bf16* x, bf16* y, u64 n, int row, int c) { any_repeat(x, y, n, row, c); }
extern "C" __global__ void repeat_f16(const f16* x, f16* y, u64 n, int row, int c) { any_repeat(x, y, n, row, c); }
extern "C" __global__ void collect_f32(const float* g, float* dx, u64 n, int row, int c) { any_collect(g, dx, n, row, c); }
extern "C" __global__ void collect_bf16(const bf16* g, bf16* dx, u64 n, int row, int c) { any_collect(g, dx, n, row, c); }
extern "C" __global__ void collect_f16(const f16* g, f16* dx, u64 n, int row, int c) { any_collect(g, dx, n, row, c); }
