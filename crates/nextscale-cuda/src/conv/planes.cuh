// Operands in shared memory as planes: 16-byte pieces (8 channels) of neighbouring positions are neighbours, and a plane is all
// positions of one piece. Eight neighbours are what the matrix unit calls a core matrix without swizzle; any position may begin
// one, so the taps of a kernel read one copy at several places.

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// A place in a ring of slots, and how often the ring went round.
struct Ring {
    int slot = 0, phase = 0;
    template <int SLOTS> __device__ __forceinline__ void next() {
        if (++slot == SLOTS) {
            slot = 0;
            phase ^= 1;
        }
    }
};

// An operand for the matrix unit. Where a row is a position: planes `apart` bytes from each other, groups of eight positions `step`
// bytes. Where a row is a channel and the unit transposes, it is the other way round.
__device__ __forceinline__ u64 described(u32 at, int apart, int step) {
    return (u64)((at & 0x3ffff) >> 4) | (u64)(apart >> 4) << 16 | (u64)(step >> 4) << 32;
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_go() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LATER> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LATER) : "memory");
}

#define FOUR(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define TWENTY(c, n) FOUR(c, n), FOUR(c, n + 1), FOUR(c, n + 2), FOUR(c, n + 3), FOUR(c, n + 4)
#endif
