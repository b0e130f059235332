// What surrounds a convolution: channels padded and cropped, bias and residual, patches and back, sums over positions.

#define EVERY(i, n) \
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < (n); i += (u64)gridDim.x * blockDim.x)

// Rows of `width` elements become rows of `to_width`; what is not there is zero, what does not fit is left out.
template <typename T>
__device__ void repack(const T* x, T* y, u64 rows, int width, u64 to_rows, int to_width) {
    EVERY(i, to_rows * to_width) {
        u64 row = i / (u32)to_width;
        int col = (int)(i - row * (u32)to_width);
        y[i] = row < rows && col < width ? x[row * (u32)width + col] : T{};
    }
}

extern "C" __global__ void repack_2(const u16* x, u16* y, u64 rows, int width, u64 to_rows, int to_width) {
    repack(x, y, rows, width, to_rows, to_width);
}
extern "C" __global__ void repack_4(const u32* x, u32* y, u64 rows, int width, u64 to_rows, int to_width) {
    repack(x, y, rows, width, to_rows, to_width);
}

// y += the first `to_width` elements of each of the first rows of x.
template <typename T>
__device__ void add_cropped(const T* x, float* y, int width, u64 to_rows, int to_width) {
    EVERY(i, to_rows * to_width) {
        u64 row = i / (u32)to_width;
        y[i] += to_f32(x[row * (u32)width + (u32)(i - row * (u32)to_width)]);
    }
}

extern "C" __global__ void add_cropped_f32(const float* x, float* y, int width, u64 to_rows, int to_width) {
    add_cropped(x, y, width, to_rows, to_width);
}
extern "C" __global__ void add_cropped_bf16(const bf16* x, float* y, int width, u64 to_rows, int to_width) {
    add_cropped(x, y, width, to_rows, to_width);
}
extern "C" __global__ void add_cropped_f16(const f16* x, float* y, int width, u64 to_rows, int to_width) {
    add_cropped(x, y, width, to_rows, to_width);
}

// y = x (rows of `width`) + bias + residual, each where there is one; y and x may be the same. Eight elements a thread
// where nothing is in the way.
template <typename S, typename T>
__device__ void epilogue(const S* x, int width, const float* bias, const T* residual, T* y, u64 rows, int channels) {
    if (width == channels && channels % 8 == 0 && aligned16(x) && aligned16(y) && aligned16(residual)) {
        u32 groups = (u32)channels / 8;
        EVERY(i, rows * groups) {
            const float* b = bias + i % groups * 8;
            float v[8], r[8];
            load8(x + 8 * i, v);
            if (residual) {
                load8(residual + 8 * i, r);
                if (bias) for (int j = 0; j < 8; j++) v[j] += b[j];
                for (int j = 0; j < 8; j++) v[j] += r[j];
            } else if (bias) {
                for (int j = 0; j < 8; j++) v[j] += b[j];
            }
            store8(y + 8 * i, v);
        }
        return;
    }
    EVERY(i, rows * channels) {
        u64 row = i / (u32)channels;
        u32 c = (u32)(i - row * (u32)channels);
        float v = to_f32(x[row * (u32)width + c]);
        if (bias) v += bias[c];
        if (residual) v += to_f32(residual[i]);
        y[i] = from_f32<T>(v);
    }
}

extern "C" __global__ void epilogue_f32_f32(const float* x, int width, const float* bias, const float* residual, float* y, u64 rows,
    int channels) {
    epilogue(x, width, bias, residual, y, rows, channels);
}
extern "C" __global__ void epilogue_bf16_bf16(const bf16* x, int width, const float* bias, const bf16* residual, bf16* y, u64 rows,
    int channels) {
    epilogue(x, width, bias, residual, y, rows, channels);
}
extern "C" __global__ void epilogue_f16_f16(const f16* x, int width, const float* bias, const f16* residual, f16* y, u64 rows,
    int channels) {
    epilogue(x, width, bias, residual, y, rows, channels);
}
extern "C" __global__ void epilogue_f32_bf16(const float* x, int width, const float* bias, const bf16* residual, bf16* y, u64 rows,
    int channels) {
    epilogue(x, width, bias, residual, y, rows, channels);
}
extern "C" __global__ void epilogue_f32_f16(const float* x, int width, const float* bias, const f16* residual, f16* y, u64 rows,
    int channels) {
    epilogue(x, width, bias, residual, y, rows, channels);
}

// Patches of x [b, h, w, c]: a row of `width` for every output position, in it the channels of every tap, then zeros.
template <typename T>
__device__ void patches(const T* x, T* y, int batch, int h, int w, int c, int oh, int ow, int kh, int kw, int stride,
                        int top, int left, int width) {
    u64 n = (u64)batch * oh * ow * width;
    EVERY(i, n) {
        u64 row = i / (u32)width;
        u32 k = (u32)(i - row * (u32)width);
        u32 tap = k / (u32)c, channel = k - tap * (u32)c;
        u64 above = row / (u32)ow;
        int ox = (int)(row - above * (u32)ow);
        u32 b = (u32)(above / (u32)oh);
        int oy = (int)(above - (u64)b * (u32)oh);
        int ty = (int)(tap / (u32)kw), tx = (int)tap - ty * kw;
        int iy = oy * stride + ty - top, ix = ox * stride + tx - left;
        bool there = ty < kh && iy >= 0 && iy < h && ix >= 0 && ix < w;
        y[i] = there ? x[(((u64)b * h + iy) * w + ix) * c + channel] : T{};
    }
}

extern "C" __global__ void patches_4(const u32* x, u32* y, int batch, int h, int w, int c, int oh, int ow, int kh,
    int kw, int stride, int top, int left, int width) {
    patches(x, y, batch, h, w, c, oh, ow, kh, kw, stride, top, left, width);
}
extern "C" __global__ void patches_16(const Words4* x, Words4* y, int batch, int h, int w, int c, int oh, int ow, int kh,
    int kw, int stride, int top, int left, int width) {
    patches(x, y, batch, h, w, c, oh, ow, kh, kw, stride, top, left, width);
}

// The same for 16-bit elements, eight columns a thread. Behind the patch go two columns of `one`, where that is not zero:
// what the weights have there is added to every sum.
extern "C" __global__ void patches_2(const u16* x, u16* y, int batch, int h, int w, int c, int oh, int ow, int kh, int kw,
    int stride, int top, int left, int width, int one) {
    u32 groups = (u32)width / 8, patch = (u32)(kh * kw * c);
    EVERY(i, (u64)batch * oh * ow * groups) {
        u32 row = (u32)(i / groups), k = (u32)(i - (u64)row * groups) * 8;
        u32 above = row / (u32)ow, b = above / (u32)oh, tap = k / (u32)c;
        int oy = (int)(above - b * (u32)oh), ox = (int)(row - above * (u32)ow);
        int ty = (int)(tap / (u32)kw), tx = (int)tap - ty * kw, channel = (int)(k - tap * (u32)c);
        const u16* image = x + (u64)b * h * w * c;
        u32 v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int iy = oy * stride + ty - top, ix = ox * stride + tx - left;
            bool there = ty < kh && iy >= 0 && iy < h && ix >= 0 && ix < w;
            v[j] = there ? image[((u64)iy * w + ix) * c + channel] : 0;
            if (k + j >= patch && k + j < patch + 2) v[j] = (u32)one;
            if (++channel == c) {
                channel = 0;
                if (++tx == kw) {
                    tx = 0;
                    ty++;
                }
            }
        }
        Words4 out;
#pragma unroll
        for (int j = 0; j < 4; j++) out.w[j] = v[2 * j] | v[2 * j + 1] << 16;
        *(Words4*)(y + i * 8) = out;
    }
}

// Weights for such patches: rows of `patch` elements become rows of `width`, with the bias as a sum of two numbers of the
// type behind them, which keeps twice the bits of one.
template <typename T>
__device__ void with_bias(const T* w, const float* bias, T* y, int outputs, int patch, int width) {
    EVERY(i, (u64)outputs * width) {
        u32 o = (u32)(i / (u32)width), k = (u32)(i - (u64)o * (u32)width);
        T v = from_f32<T>(0.0f);
        if (k < (u32)patch) v = w[(u64)o * patch + k];
        else if (k < (u32)patch + 2) {
            v = from_f32<T>(bias[o]);
            if (k > (u32)patch) v = from_f32<T>(bias[o] - to_f32(v));
        }
        y[i] = v;
    }
}

extern "C" __global__ void with_bias_bf16(const bf16* w, const float* bias, bf16* y, int outputs, int patch, int width) {
    with_bias(w, bias, y, outputs, patch, width);
}
extern "C" __global__ void with_bias_f16(const f16* w, const float* bias, f16* y, int outputs, int patch, int width) {
    with_bias(w, bias, y, outputs, patch, width);
}

// The way back: every element of x collects what its patches hold, taps in their order.
template <typename T>
__device__ void collect(const float* y, T* x, int batch, int h, int w, int c, int oh, int ow, int kh, int kw,
                        int stride, int top, int left, int width) {
    u64 n = (u64)batch * h * w * c;
    EVERY(i, n) {
        u64 pixel = i / (u32)c;
        u32 channel = (u32)(i - pixel * (u32)c);
        u64 above = pixel / (u32)w;
        int ix = (int)(pixel - above * (u32)w);
        u32 b = (u32)(above / (u32)h);
        int iy = (int)(above - (u64)b * (u32)h);
        float sum = 0.0f;
        for (int ty = 0; ty < kh; ty++) {
            int down = iy + top - ty;
            if (down < 0 || down % stride != 0 || down / stride >= oh) continue;
            for (int tx = 0; tx < kw; tx++) {
                int right = ix + left - tx;
                if (right < 0 || right % stride != 0 || right / stride >= ow) continue;
                u64 row = ((u64)b * oh + down / stride) * ow + right / stride;
                sum += y[row * (u32)width + (u32)((ty * kw + tx) * c) + channel];
            }
        }
        x[i] = from_f32<T>(sum);
    }
}

extern "C" __global__ void collect_f32(const float* y, float* x, int batch, int h, int w, int c, int oh, int ow, int kh,
    int kw, int stride, int top, int left, int width) {
    collect(y, x, batch, h, w, c, oh, ow, kh, kw, stride, top, left, width);
}
extern "C" __global__ void collect_bf16(const float* y, bf16* x, int batch, int h, int w, int c, int oh, int ow, int kh,
    int kw, int stride, int top, int left, int width) {
    collect(y, x, batch, h, w, c, oh, ow, kh, kw, stride, top, left, width);
}
extern "C" __global__ void collect_f16(const float* y, f16* x, int batch, int h, int w, int c, int oh, int ow, int kh,
    int kw, int stride, int top, int left, int width) {
    collect(y, x, batch, h, w, c, oh, ow, kh, kw, stride, top, left, width);
}

// Sums over rows, first part: block (x, y) sums the rows x·per … of the columns y·256·N …, N columns a thread, and writes
// a row of `partial`. As many rows as fit a block are taken at once; their sums are added in order.
template <typename T> __device__ __forceinline__ void load(const T* x, float (&y)[8]) { load8(x, y); }
template <typename T> __device__ __forceinline__ void load(const T* x, float (&y)[1]) { y[0] = to_f32(*x); }

template <int N, typename T>
__device__ void sum_rows(const T* x, float* partial, u64 rows, int columns, int per) {
    __shared__ float shared[256 * N];
    int groups = columns / N, first = blockIdx.y * 256;
    int here = min(groups - first, 256);
    int lanes = 256 / here, lane = threadIdx.x / here, group = first + threadIdx.x % here;
    float sum[N] = {};
    u64 begin = (u64)blockIdx.x * per, end = min(begin + per, rows);
    if (lane < lanes) {
#pragma unroll 4
        for (u64 row = begin + lane; row < end; row += lanes) {
            float a[N];
            load(x + row * columns + group * N, a);
            for (int j = 0; j < N; j++) sum[j] += a[j];
        }
    }
    for (int j = 0; j < N; j++) shared[j * 256 + threadIdx.x] = sum[j];
    __syncthreads();
    if (lane == 0) {
        for (int j = 0; j < N; j++) {
            float all = 0.0f;
            for (int l = 0; l < lanes; l++) all += shared[j * 256 + l * here + threadIdx.x];
            partial[(u64)blockIdx.x * columns + group * N + j] = all;
        }
    }
}

extern "C" __global__ void sum_rows_f32(const float* x, float* partial, u64 rows, int columns, int per) {
    sum_rows<1>(x, partial, rows, columns, per);
}
extern "C" __global__ void sum_rows_by_8_f32(const float* x, float* partial, u64 rows, int columns, int per) {
    sum_rows<8>(x, partial, rows, columns, per);
}
extern "C" __global__ void sum_rows_bf16(const bf16* x, float* partial, u64 rows, int columns, int per) {
    sum_rows<1>(x, partial, rows, columns, per);
}
extern "C" __global__ void sum_rows_by_8_bf16(const bf16* x, float* partial, u64 rows, int columns, int per) {
    sum_rows<8>(x, partial, rows, columns, per);
}
extern "C" __global__ void sum_rows_f16(const f16* x, float* partial, u64 rows, int columns, int per) {
    sum_rows<1>(x, partial, rows, columns, per);
}
extern "C" __global__ void sum_rows_by_8_f16(const f16* x, float* partial, u64 rows, int columns, int per) {
    sum_rows<8>(x, partial, rows, columns, per);
}

// Second part: adds the rows of `partial` to y, one warp a column, always in the same order.
extern "C" __global__ void add_partial_sums(const float* partial, float* y, int rows, int columns) {
    int column = (int)(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
    if (column >= columns) return;
    float sum = 0.0f;
    for (int row = lane; row < rows; row += 32) sum += partial[(u64)row * columns + column];
    sum = warp_sum(sum);
    if (lane == 0) y[column] += sum;
}
