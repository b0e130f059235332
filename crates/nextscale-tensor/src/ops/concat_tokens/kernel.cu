// Joins up to eight parts along a row; what is moved is units of 16, 4 or 2 bytes.

struct Two { u16 bits; };

template <typename U>
__device__ __forceinline__ void join(const U* const (&parts)[8], const int (&widths)[8], U* y, int count, int first, int row,
                                     int batch) {
    int width = 0;
    for (int i = 0; i < count; i++) width += widths[i];
    for (int b = blockIdx.y; b < batch; b += gridDim.y) {
        U* to = y + (u64)b * row + first;
        for (int u = blockIdx.x * blockDim.x + threadIdx.x; u < width; u += gridDim.x * blockDim.x) {
            int at = u;
            U value;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (i < count && at >= 0 && at < widths[i]) value = parts[i][(u64)b * widths[i] + at];
                at -= i < count ? widths[i] : 0;
            }
            to[u] = value;
        }
    }
}

// Parts and their units in a row of the batch; `first` is where they begin in a row of y, which has `row` units.
#define JOIN(n, U) \
    extern "C" __global__ void join_##n(const void* p0, const void* p1, const void* p2, const void* p3, const void* p4, \
                                        const void* p5, const void* p6, const void* p7, int n0, int n1, int n2, int n3, \
                                        int n4, int n5, int n6, int n7, void* y, int count, int first, int row, int batch) { \
        const U* const parts[8] = {(const U*)p0, (const U*)p1, (const U*)p2, (const U*)p3, \
                                   (const U*)p4, (const U*)p5, (const U*)p6, (const U*)p7}; \
        const int widths[8] = {n0, n1, n2, n3, n4, n5, n6, n7}; \
        join(parts, widths, (U*)y, count, first, row, batch); \
    }
JOIN(16, Words4)
JOIN(4, u32)
JOIN(2, Two)
