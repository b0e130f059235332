// The transformer's input embeddings: sums of rows of float32 tables. Four columns a thread where `vectors`, else one.

struct alignas(16) Four { float v[4]; };

template <int N> __device__ __forceinline__ void get(const float* p, float (&y)[N]) {
    if (N == 4) {
        Four f = *(const Four*)p;
        for (int j = 0; j < N; j++) y[j] = f.v[j];
    } else {
        y[0] = *p;
    }
}
template <int N> __device__ __forceinline__ void put(float* p, const float (&y)[N]) {
    if (N == 4) {
        Four f;
        for (int j = 0; j < N; j++) f.v[j] = y[j];
        *(Four*)p = f;
    } else {
        *p = y[0];
    }
}

// x [B, len, C]: the first tokens are cond + start, the others embeddings; to all of them lvl[level] + pos is added.
template <int N>
__device__ void embed(const float* cond, const float* embeddings, const float* start, const float* pos, const float* lvl,
                      const int* level_of, float* x, int len, int first, int c, int level, u64 n) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n / N; i += step) {
        u32 row = (u32)(i * N / c), column = (u32)(i * N % c), b = row / len, t = row % len;
        int k = level_of ? level_of[t] : level;
        float own[N], base[N], p[N];
        get(lvl + (u64)k * c + column, base);
        get(pos + (u64)t * c + column, p);
        if ((int)t >= first) {
            get(embeddings + ((u64)b * (len - first) + t - first) * c + column, own);
        } else {
            float s[N];
            get(cond + (u64)b * c + column, own);
            get(start + (u64)t * c + column, s);
            for (int j = 0; j < N; j++) own[j] += s[j];
        }
        for (int j = 0; j < N; j++) own[j] += base[j] + p[j];
        put(x + i * N, own);
    }
}
extern "C" __global__ void token_embedding(const float* cond, const float* embeddings, const float* start, const float* pos,
                                           const float* lvl, const int* level_of, float* x, int len, int first, int c,
                                           int level, int vectors, u64 n) {
    if (vectors) embed<4>(cond, embeddings, start, pos, lvl, level_of, x, len, first, c, level, n);
    else embed<1>(cond, embeddings, start, pos, lvl, level_of, x, len, first, c, level, n);
}

// Gradient: embeddings get g's other tokens, cond the sum over the first ones; both may be null.
template <int N>
__device__ void split(const float* g, float* embeddings, float* cond, int len, int first, int c, u64 n) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n / N; i += step) {
        u32 row = (u32)(i * N / c), column = (u32)(i * N % c), b = row / len, t = row % len;
        float a[N];
        if ((int)t >= first) {
            if (!embeddings) continue;
            get(g + i * N, a);
            put(embeddings + ((u64)b * (len - first) + t - first) * c + column, a);
        } else if (t == 0 && cond) {
            float sum[N];
            get(cond + (u64)b * c + column, sum);
            for (int u = 0; u < first; u++) {
                get(g + ((u64)row + u) * c + column, a);
                for (int j = 0; j < N; j++) sum[j] += a[j];
            }
            put(cond + (u64)b * c + column, sum);
        }
    }
}
extern "C" __global__ void token_embedding_backward(const float* g, float* embeddings, float* cond, int len, int first, int c,
                                                    int vectors, u64 n) {
    if (vectors) split<4>(g, embeddings, cond, len, first, c, n);
    else split<1>(g, embeddings, cond, len, first, c, n);
}

// One scale while sampling: x [copies·B, l, C] = embeddings [B, l, C] + (lvl + pos), lvl one row, pos from the scale's start on.
template <int N>
__device__ void scale_embed(const float* embeddings, const float* pos, const float* lvl, float* x, int b, int l, int c, u64 n) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n / N; i += step) {
        u32 row = (u32)(i * N / c), column = (u32)(i * N % c);
        float own[N], base[N], p[N];
        get(embeddings + (u64)(row % (b * l)) * c + column, own);
        get(lvl + column, base);
        get(pos + (u64)(row % l) * c + column, p);
        for (int j = 0; j < N; j++) own[j] += base[j] + p[j];
        put(x + i * N, own);
    }
}
extern "C" __global__ void scale_embedding(const float* embeddings, const float* pos, const float* lvl, float* x, int b, int l,
                                           int c, int vectors, u64 n) {
    if (vectors) scale_embed<4>(embeddings, pos, lvl, x, b, l, c, n);
    else scale_embed<1>(embeddings, pos, lvl, x, b, l, c, n);
}
