// Rows of `row` tokens to parts one after the other; part i is [batch, begins[i + 1] - begins[i]].
extern "C" __global__ void split_tokens(const int* x, const int* begins, int* y, int parts, int row, int batch) {
    for (int u = blockIdx.x * blockDim.x + threadIdx.x; u < row; u += gridDim.x * blockDim.x) {
        int part = 0;
        while (part + 1 < parts && u >= begins[part + 1]) part++;
        int begin = begins[part], width = begins[part + 1] - begin;
        for (int b = blockIdx.y; b < batch; b += gridDim.y)
            y[(u64)batch * begin + (u64)b * width + (u - begin)] = x[(u64)b * row + u];
    }
}
