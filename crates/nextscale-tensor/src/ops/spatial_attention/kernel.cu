// Softmax over the rows of a square matrix of scores, and its gradient. A block has a row.

// p = softmax(scale·s), in the type of the products.
template <typename T>
__device__ void softmax(const float* s, T* p, int n, float scale) {
    __shared__ float scratch[32], most;
    const float* row = s + (u64)blockIdx.x * n;
    T* out = p + (u64)blockIdx.x * n;
    float top = __int_as_float(0xff800000);
    for (int i = threadIdx.x; i < n; i += blockDim.x) top = fmaxf(top, row[i]);
    top = warp_max(top);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = top;
    __syncthreads();
    if (threadIdx.x < 32) {
        top = warp_max(threadIdx.x < blockDim.x / 32 ? scratch[threadIdx.x] : __int_as_float(0xff800000));
        if (threadIdx.x == 0) most = top;
    }
    __syncthreads();
    top = most;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf((row[i] - top) * scale);
    float inverse = 1.0f / block_sum(sum, scratch);
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = from_f32<T>(expf((row[i] - top) * scale) * inverse);
}

// ds = scale·p∘(dp − Σ p∘dp).
template <typename T>
__device__ void gradient(const T* p, const float* dp, T* ds, int n, float scale) {
    __shared__ float scratch[32];
    u64 at = (u64)blockIdx.x * n;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum = fmaf(to_f32(p[at + i]), dp[at + i], sum);
    sum = block_sum(sum, scratch);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        ds[at + i] = from_f32<T>(to_f32(p[at + i]) * (dp[at + i] - sum) * scale);
}

extern "C" __global__ void softmax_f32(const float* s, float* p, int n, float scale) { softmax(s, p, n, scale); }
extern "C" __global__ void softmax_bf16(const float* s, bf16* p, int n, float scale) { softmax(s, p, n, scale); }
extern "C" __global__ void softmax_f16(const float* s, f16* p, int n, float scale) { softmax(s, p, n, scale); }
extern "C" __global__ void gradient_f32(const float* p, const float* dp, float* ds, int n, float scale) { gradient(p,
    dp, ds, n, scale); }
extern "C" __global__ void gradient_bf16(const bf16* p, const float* dp, bf16* ds, int n, float scale) { gradient(p,
    dp, ds, n, scale); }
extern "C" __global__ void gradient_f16(const f16* p, const float* dp, f16* ds, int n, float scale) { gradient(p, dp,
    ds, n, scale); }
