// The largest of every window. A thread makes one element; neighbours are neighbouring channels.

// Element `i` of a map [.., h, w, c]: its channel, column and line, and its image.
struct Place { int channel, col, row; u64 image; };
__device__ __forceinline__ Place place(u64 i, int h, int w, int c) {
    Place p;
    u64 pixel = i / c;
    p.channel = (int)(i - pixel * c);
    u64 line = pixel / w;
    p.col = (int)(pixel - line * w);
    p.image = line / h;
    p.row = (int)(line - p.image * h);
    return p;
}

template <typename T>
__device__ void pool(const T* x, T* y, int* winners, int h, int w, int c, int oh, int ow, int size, int stride, int pad,
                     u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        Place at = place(i, oh, ow, c);
        const T* from = x + at.image * h * w * c + at.channel;
        int top = at.row * stride - pad, left = at.col * stride - pad;
        int bottom = min(top + size, h), right = min(left + size, w), winner = -1;
        float best = 0.0f;
        for (int p = max(top, 0); p < bottom; p++) {
            for (int q = max(left, 0); q < right; q++) {
                int pixel = p * w + q;
                float v = to_f32(from[(u64)pixel * c]);
                if (winner < 0 || v > best || (v != v && best == best)) {
                    best = v;
                    winner = pixel;
                }
            }
        }
        y[i] = from_f32<T>(best);
        if (winners) winners[i] = winner;
    }
}

// Every pixel collects from the windows that it is in and has won, in their order.
template <typename T>
__device__ void collect(const int* winners, const T* g, T* dx, int h, int w, int c, int oh, int ow, int size, int stride,
                        int pad, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        Place at = place(i, h, w, c);
        int pixel = at.row * w + at.col;
        // The first window that reaches this far, and the last that begins before it.
        int p0 = max(at.row + pad - size + stride, 0) / stride, p1 = min((at.row + pad) / stride, oh - 1);
        int q0 = max(at.col + pad - size + stride, 0) / stride, q1 = min((at.col + pad) / stride, ow - 1);
        float sum = 0.0f;
        for (int p = p0; p <= p1; p++) {
            for (int q = q0; q <= q1; q++) {
                u64 k = ((at.image * oh + p) * ow + q) * c + at.channel;
                if (winners[k] == pixel) sum += to_f32(g[k]);
            }
        }
        dx[i] = from_f32<T>(sum);
    }
}

#define POOL(t, T) \
    extern "C" __global__ void max_pool_##t(const T* x, T* y, int* winners, int h, int w, int c, int oh, int ow, int size, \
                                            int stride, int pad, u64 n) { \
        pool(x, y, winners, h, w, c, oh, ow, size, stride, pad, n); \
    } \
    extern "C" __global__ void max_pool_back_##t(const int* winners, const T* g, T* dx, int h, int w, int c, int oh, int ow, \
                                                 int size, int stride, int pad, u64 n) { \
        collect(winners, g, dx, h, w, c, oh, ow, size, stride, pad, n); \
    }
POOL(f32, float)
POOL(bf16, bf16)
POOL(f16, f16)
