// Rows of a float32 table by index, and sums of gradients by row.

// An index that is not in the table gives not-a-numbers: the mistake is seen, and no other memory is.
extern "C" __global__ void gather_rows(const float* table, const int* indices, float* y, int rows, int c, u64 n) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += step) {
        int row = indices[i / c];
        y[i] = row >= 0 && row < rows ? table[(u64)row * c + i % c] : __int_as_float(0x7fffffff);
    }
}

// sums[row] += every row of g [count, C] whose index is `row`, in order. A block has one row of the table: it looks through
// the indices, as many at a time as it has threads, and adds what it finds.
extern "C" __global__ void gather_rows_backward(const float* g, const int* indices, float* sums, int count, int c) {
    __shared__ int found[128];
    __shared__ int before[5];
    int row = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    for (int from = 0; from < count; from += 128) {
        int i = from + threadIdx.x;
        bool mine = i < count && indices[i] == row;
        u32 all = __ballot_sync(0xffffffffu, mine);
        // Nothing is found in most rounds: one barrier then.
        if (!__syncthreads_or(mine)) continue;
        if (lane == 0) before[warp + 1] = __popc(all);
        __syncthreads();
        if (threadIdx.x == 0) {
            before[0] = 0;
            for (int w = 1; w < 5; w++) before[w] += before[w - 1];
        }
        __syncthreads();
        if (mine) found[before[warp] + __popc(all & ((1u << lane) - 1))] = i;
        __syncthreads();
        int matches = before[4];
        for (int column = threadIdx.x; column < c; column += 128) {
            float sum = 0.0f;
#pragma unroll 4
            for (int k = 0; k < matches; k++) sum += g[(u64)found[k] * c + column];
            sums[(u64)row * c + column] += sum;
        }
    }
}
