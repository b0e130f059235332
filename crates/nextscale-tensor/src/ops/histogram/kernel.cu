// How often every index occurs. Integer additions: the order does not matter.

// Counts of a block in shared memory first, where the bins fit there.
extern "C" __global__ void count_shared(const int* x, int* counts, int bins, u64 n) {
    extern __shared__ int own[];
    for (int i = threadIdx.x; i < bins; i += blockDim.x) own[i] = 0;
    __syncthreads();
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        int v = x[i];
        if (v >= 0 && v < bins) atomicAdd(own + v, 1);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < bins; i += blockDim.x)
        if (own[i]) atomicAdd(counts + i, own[i]);
}

extern "C" __global__ void count_global(const int* x, int* counts, int bins, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        int v = x[i];
        if (v >= 0 && v < bins) atomicAdd(counts + v, 1);
    }
}
