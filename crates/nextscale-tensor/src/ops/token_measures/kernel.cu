// Cross entropy and hits by range of positions: a block takes a range.

extern "C" __global__ void __launch_bounds__(1024) token_measures(const float* costs, const int* predicted, const int* targets, const int* ranges, float* out, int b, int l) {
    __shared__ double scratch[32];
    int start = ranges[2 * blockIdx.x], length = ranges[2 * blockIdx.x + 1] - start;
    u64 n = (u64)b * length;
    double sum = 0.0, right = 0.0;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) {
        u64 at = i / (u32)length * l + start + i % (u32)length;
        sum += (double)costs[at];
        right += predicted[at] == targets[at] ? 1.0 : 0.0;
    }
    sum = block_sum64(sum, scratch);
    right = block_sum64(right, scratch);
    if (threadIdx.x == 0) {
        out[2 * blockIdx.x] = (float)sum;
        out[2 * blockIdx.x + 1] = (float)right;
    }
}
