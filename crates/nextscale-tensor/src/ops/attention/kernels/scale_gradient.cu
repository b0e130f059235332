// The gradient of scale_mul from that of every block of queries, [B, H, blocks], added in a fixed order to `to` [H]; a block
// of 256 threads a head. Where it is clamped it gets none.
extern "C" __global__ void scale_gradient(const float* slopes, const float* scale_mul, float* to, int heads, int batch,
                                          int blocks) {
    __shared__ float scratch[32];
    int h = blockIdx.x;
    float s = 0;
    for (int i = threadIdx.x; i < batch * blocks; i += blockDim.x)
        s += slopes[((u64)(i / blocks) * heads + h) * blocks + i % blocks];
    s = block_sum(s, scratch);
    if (threadIdx.x == 0 && scale_mul[h] <= MOST_SCALE_MUL) to[h] += s;
}
