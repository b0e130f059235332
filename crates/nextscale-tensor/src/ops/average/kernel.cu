// Eight elements a thread. A share of one is a copy: the difference may be rounded.
extern "C" __global__ void __launch_bounds__(256) average(float* a, const float* w, u64 n, float share) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i * 8 < n; i += step) {
        u64 at = i * 8;
        if (at + 8 <= n) {
            float x[8], y[8];
            load8(a + at, x);
            load8(w + at, y);
            for (int j = 0; j < 8; j++) x[j] = share == 1.0f ? y[j] : fmaf(share, y[j] - x[j], x[j]);
            store8(a + at, x);
        } else {
            for (u64 j = at; j < n; j++) a[j] = share == 1.0f ? w[j] : fmaf(share, w[j] - a[j], a[j]);
        }
    }
}
