// Resizing along the width, then along the height; a thread makes N channels of one output and does both.

template <int N>
__device__ __forceinline__ void resize(const float* x, float* y, const int* rows, const int* cols, int h, int w, int to_h,
                                       int to_w, int c, u64 n) {
    Axis down = axis_at(rows, to_h), right = axis_at(cols, to_w);
    int groups = c / N;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        u64 at = i / groups;
        int group = (int)(i - at * groups);
        u64 line = at / to_w;
        int col = (int)(at - line * to_w);
        u64 image = line / to_h;
        int row = (int)(line - image * to_h);
        const float* from = x + image * h * w * c + group * N;
        Channels<N> sum = zeros<N>();
        for (int t = down.begins[row], end = down.begins[row + 1]; t < end; t++) {
            Tap tap = down.taps[t];
            add_weighted(sum, tap.weight, resized<N>(right, col, from + (u64)tap.from * w * c, c));
        }
        store(y + at * c + group * N, sum);
    }
}

// `n` vectors of four channels, or of one.
extern "C" __global__ void resize_4(const float* x, float* y, const int* rows, const int* cols, int h, int w, int to_h,
                                    int to_w, int c, u64 n) {
    resize<4>(x, y, rows, cols, h, w, to_h, to_w, c, n);
}
extern "C" __global__ void resize_1(const float* x, float* y, const int* rows, const int* cols, int h, int w, int to_h,
                                    int to_w, int c, u64 n) {
    resize<1>(x, y, rows, cols, h, w, to_h, to_w, c, n);
}
