// Copies from memory to shared memory behind a thread's back, which every GPU from sm_80 on has. Goes before the kernels that use it.

// Sixteen bytes; zeros where `there` is false.
__device__ __forceinline__ void copy_16(u32 to, const void* from, bool there) {
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_4(u32 to, const void* from, bool there) {
    int bytes = there ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void copies_begin() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for this thread's copies but the last `LATER` groups of them; a barrier must follow before others read them.
template <int LATER> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}
