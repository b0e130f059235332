// Adding up what other GPUs have sent.

// y[i] += the sum of x[s * stride + i] over all sources s, one after the other. y need not be at a multiple of 16 bytes; x and its
// stride are.
extern "C" __global__ void add_sent_f32(float* y, const float* x, u64 stride, int sources, u64 n) {
    u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    u64 full = aligned16(y) ? n / 4 : 0;
    for (u64 i = at; i < full; i += step) {
        float4 sum = ((float4*)y)[i];
        for (int s = 0; s < sources; s++) {
            float4 a = ((const float4*)(x + s * stride))[i];
            sum.x += a.x;
            sum.y += a.y;
            sum.z += a.z;
            sum.w += a.w;
        }
        ((float4*)y)[i] = sum;
    }
    for (u64 i = 4 * full + at; i < n; i += step) {
        float sum = y[i];
        for (int s = 0; s < sources; s++) sum += x[s * stride + i];
        y[i] = sum;
    }
}
