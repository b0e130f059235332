// An axis of a resize as a table: for every output, and once more for the end, where its pairs (input, weight) begin,
// counted in pairs; then the pairs, a weight as its bits. Sums run in the table's order, products and additions rounded
// apart, as the CPU does.

struct alignas(8) Tap { int from; float weight; };

struct Axis {
    const int* begins;
    const Tap* taps;
};
// `outputs` of the axis; the pairs begin at an even word.
__device__ __forceinline__ Axis axis_at(const int* table, int outputs) {
    Axis a = {table, (const Tap*)(table + (outputs + 2) / 2 * 2)};
    return a;
}

// Vectors of N channels.
template <int N> struct Channels { float v[N]; };

template <int N> __device__ __forceinline__ Channels<N> zeros() {
    Channels<N> y;
    for (int i = 0; i < N; i++) y.v[i] = 0.0f;
    return y;
}
template <int N> __device__ __forceinline__ Channels<N> load(const float* p) {
    Channels<N> y;
    if (N == 4) {
        Words4 w = *(const Words4*)p;
        for (int i = 0; i < N; i++) y.v[i] = __uint_as_float(w.w[i]);
    } else {
        for (int i = 0; i < N; i++) y.v[i] = p[i];
    }
    return y;
}
template <int N> __device__ __forceinline__ void store(float* p, const Channels<N>& x) {
    if (N == 4) {
        Words4 w;
        for (int i = 0; i < N; i++) w.w[i] = __float_as_uint(x.v[i]);
        *(Words4*)p = w;
    } else {
        for (int i = 0; i < N; i++) p[i] = x.v[i];
    }
}
template <int N> __device__ __forceinline__ void add_weighted(Channels<N>& y, float w, const Channels<N>& x) {
    for (int i = 0; i < N; i++) y.v[i] = __fadd_rn(y.v[i], __fmul_rn(w, x.v[i]));
}

// Output `i` of an axis over inputs `stride` floats apart.
template <int N> __device__ __forceinline__ Channels<N> resized(const Axis& axis, int i, const float* x, int stride) {
    Channels<N> y = zeros<N>();
    for (int t = axis.begins[i], end = axis.begins[i + 1]; t < end; t++) {
        Tap tap = axis.taps[t];
        add_weighted(y, tap.weight, load<N>(x + tap.from * stride));
    }
    return y;
}
