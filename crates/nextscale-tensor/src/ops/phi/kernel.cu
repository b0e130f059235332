// y = (1 − ρ)·x + ρ·(conv3×3(x) + b) in float32 for 32 channels, and the blend alone for others.

#define C 32
#define TILE_H 4
#define TILE_W 16
#define HALO_W (TILE_W + 2)
// Rows of weights lie four floats further than they need to, so that eight outputs' loads hit all banks once.
#define K (9 * C)
#define ROW (K + 4)

struct Quad { float v[4]; };
__device__ __forceinline__ Quad quad(const float* p) {
    Words4 w = *(const Words4*)p;
    Quad q;
    for (int j = 0; j < 4; j++) q.v[j] = __uint_as_float(w.w[j]);
    return q;
}

// A block makes 4×16 positions of one image. A thread makes four neighbouring positions of the four outputs o, o + 8,
// o + 16, o + 24; the six pixels that its positions see in a row are read once for three taps.
extern "C" __global__ void __launch_bounds__(128) phi_32(const float* x, const float* weight, const float* bias, float* y,
                                                        int h, int w, float rho) {
    extern __shared__ float shared[];
    float* weights = shared;            // [32][ROW]
    float* pixels = shared + C * ROW;   // [6][18][32]
    int top = blockIdx.y * TILE_H, left = blockIdx.x * TILE_W;
    const float* image = x + (u64)blockIdx.z * h * w * C;
    for (int i = threadIdx.x; i < C * K / 4; i += 128)
        *(Words4*)(weights + i / (K / 4) * ROW + i % (K / 4) * 4) = ((const Words4*)weight)[i];
    for (int i = threadIdx.x; i < (TILE_H + 2) * HALO_W * C / 4; i += 128) {
        int pixel = i / (C / 4), iy = top + pixel / HALO_W - 1, ix = left + pixel % HALO_W - 1;
        Words4 v = {};
        if (iy >= 0 && iy < h && ix >= 0 && ix < w) v = ((const Words4*)(image + ((u64)iy * w + ix) * C))[i % (C / 4)];
        ((Words4*)pixels)[i] = v;
    }
    __syncthreads();
    int o = threadIdx.x % 8, group = threadIdx.x / 8, row = group / 4, col = group % 4 * 4;
    float sum[4][4] = {};
    for (int ty = 0; ty < 3; ty++) {
        const float* line = pixels + ((row + ty) * HALO_W + col) * C;
        for (int i = 0; i < C; i += 4) {
            Quad p[6];
#pragma unroll
            for (int j = 0; j < 6; j++) p[j] = quad(line + j * C + i);
#pragma unroll
            for (int tx = 0; tx < 3; tx++) {
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    Quad q = quad(weights + (o + 8 * n) * ROW + (ty * 3 + tx) * C + i);
#pragma unroll
                    for (int j = 0; j < 4; j++)
#pragma unroll
                        for (int k = 0; k < 4; k++) sum[j][n] = fmaf(p[j + tx].v[k], q.v[k], sum[j][n]);
                }
            }
        }
    }
    int oy = top + row;
    if (oy >= h) return;
    for (int j = 0; j < 4; j++) {
        int ox = left + col + j;
        if (ox >= w) return;
        float* to = y + (((u64)blockIdx.z * h + oy) * w + ox) * C;
        const float* here = pixels + ((row + 1) * HALO_W + col + j + 1) * C;
        for (int n = 0; n < 4; n++) {
            int channel = o + 8 * n;
            to[channel] = here[channel] * (1.0f - rho) + (sum[j][n] + bias[channel]) * rho;
        }
    }
}

// y = a·x + b·z, z where there is one.
extern "C" __global__ void blend(const float* x, const float* z, float* y, float a, float b, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x)
        y[i] = z ? a * x[i] + b * z[i] : a * x[i];
}
