// Kernels that treat each row, or each value, by itself. A row's result does not depend on the other rows.

// x[row] (+)= table[ids[row]]: a block a row.
template <class T>
__device__ inline void embed(float *x, const T *table, const u32 *ids, int features, int table_rows, int adds) {
    u64 row = blockIdx.x;
    u64 id = ids[row];
    bool whole_rows = features % 8 == 0;
    for (int at = threadIdx.x * 8; at < features; at += blockDim.x * 8) {
        int count = least(8, features - at);
        bool whole = whole_rows && count == 8;
        float v[8] = {};
        if (id < (u64)table_rows) load8(table + id * features + at, v, whole, count);
        if (adds) {
            float before[8];
            load8(x + row * features + at, before, whole, count);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] += before[i];
        }
        store8(x + row * features + at, v, whole, count);
    }
}
KERNEL embed_f32(float *x, const float *table, const u32 *ids, int features, int table_rows, int adds) {
    embed(x, table, ids, features, table_rows, adds);
}
KERNEL embed_bf16(float *x, const bf16 *table, const u32 *ids, int features, int table_rows, int adds) {
    embed(x, table, ids, features, table_rows, adds);
}
KERNEL embed_f16(float *x, const f16 *table, const u32 *ids, int features, int table_rows, int adds) {
    embed(x, table, ids, features, table_rows, adds);
}

// LayerNorm, or RMSNorm where `is_rms`: a block a row, which it keeps in its registers. At most 8192 features.
template <class In, class Out>
__device__ inline void norm(const In *x, Out *y, const float *gamma, const float *beta, float eps, int features,
                            int is_rms) {
    const int CHUNKS = 4;
    x += (u64)blockIdx.x * features;
    y += (u64)blockIdx.x * features;
    bool whole_rows = features % 8 == 0;
    float v[CHUNKS][8];
    float sum = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        int at = (chunk * blockDim.x + threadIdx.x) * 8;
        int count = least(8, features - at);
        if (count <= 0) continue;
        load8(x + at, v[chunk], whole_rows, count);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += v[chunk][i];
    }
    float mean = is_rms ? 0.0f : block_sum(sum) / features;
    float squares = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        int at = (chunk * blockDim.x + threadIdx.x) * 8;
        int count = least(8, features - at);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) squares += (v[chunk][i] - mean) * (v[chunk][i] - mean);
    }
    float inverse = 1.0f / sqrtf(block_sum(squares) / features + eps);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        int at = (chunk * blockDim.x + threadIdx.x) * 8;
        int count = least(8, features - at);
        if (count <= 0) continue;
        float scale[8], offset[8] = {};
        load8(gamma + at, scale, whole_rows, count);
        if (beta) load8(beta + at, offset, whole_rows, count);
#pragma unroll
        for (int i = 0; i < 8; i++) v[chunk][i] = (v[chunk][i] - mean) * inverse * scale[i] + offset[i];
        store8(y + at, v[chunk], whole_rows, count);
    }
}
KERNEL norm_ff(const float *x, float *y, const float *gamma, const float *beta, float eps, int features, int is_rms) {
    norm(x, y, gamma, beta, eps, features, is_rms);
}
KERNEL norm_fh(const float *x, half *y, const float *gamma, const float *beta, float eps, int features, int is_rms) {
    norm(x, y, gamma, beta, eps, features, is_rms);
}
KERNEL norm_hh(const half *x, half *y, const float *gamma, const float *beta, float eps, int features, int is_rms) {
    norm(x, y, gamma, beta, eps, features, is_rms);
}

// In place, on the first `heads` heads of each row: RMSNorm of the head if there is a `gamma`, then the rotation by the
// row's position, which turns value i against value i + head_dim / 2. A warp a head, of at most 256 values.
template <class T>
__device__ inline void rotate(T *x, int rows, int stride, int heads, int head_dim, const float *gamma, float eps,
                              const float *cosines, const float *sines, const u32 *positions) {
    const int PAIRS = 4;
    u64 warp = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (warp >= (u64)rows * heads) return; // the whole warp
    u64 row = warp / heads;
    int pairs = head_dim / 2;
    T *head = x + row * stride + warp % heads * head_dim;
    float a[PAIRS], b[PAIRS];
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        int i = lane + 32 * k;
        a[k] = i < pairs ? to_float(head[i]) : 0.0f;
        b[k] = i < pairs ? to_float(head[i + pairs]) : 0.0f;
        squares += a[k] * a[k] + b[k] * b[k];
    }
    float inverse = 1.0f;
    if (gamma) inverse = 1.0f / sqrtf(warp_sum(squares) / head_dim + eps);
    u64 angle = (u64)positions[row] * pairs;
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        int i = lane + 32 * k;
        if (i >= pairs) continue;
        if (gamma) a[k] *= inverse * gamma[i], b[k] *= inverse * gamma[i + pairs];
        float cosine = cosines[angle + i], sine = sines[angle + i];
        round_to(a[k] * cosine - b[k] * sine, head[i]);
        round_to(b[k] * cosine + a[k] * sine, head[i + pairs]);
    }
}
KERNEL rotate_f(float *x, int rows, int stride, int heads, int head_dim, const float *gamma, float eps,
                const float *cosines, const float *sines, const u32 *positions) {
    rotate(x, rows, stride, heads, head_dim, gamma, eps, cosines, sines, positions);
}
KERNEL rotate_h(half *x, int rows, int stride, int heads, int head_dim, const float *gamma, float eps,
                const float *cosines, const float *sines, const u32 *positions) {
    rotate(x, rows, stride, heads, head_dim, gamma, eps, cosines, sines, positions);
}

// y = function(x[.. features]) . x[features ..]: a thread takes eight values.
template <class T> __device__ inline void gate(const T *x, T *y, int rows, int features, int map) {
    int chunks = (features + 7) / 8;
    bool whole_rows = features % 8 == 0;
    u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (u64)rows * chunks) return;
    u64 row = index / chunks;
    int at = (int)(index % chunks) * 8;
    int count = least(8, features - at);
    float input[8], other[8];
    load8(x + row * 2 * features + at, input, whole_rows, count);
    load8(x + row * 2 * features + features + at, other, whole_rows, count);
#pragma unroll
    for (int i = 0; i < 8; i++) input[i] = function(map, input[i]) * other[i];
    store8(y + row * features + at, input, whole_rows, count);
}
KERNEL gate_f(const float *x, float *y, int rows, int features, int map) { gate(x, y, rows, features, map); }
KERNEL gate_h(const half *x, half *y, int rows, int features, int map) { gate(x, y, rows, features, map); }

// x = function(x) (+ other), in place: a thread takes eight values.
template <class T> __device__ inline void apply(T *x, const T *other, u64 values, int map) {
    u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= values) return;
    int count = values - at < 8 ? (int)(values - at) : 8;
    float v[8];
    load8(x + at, v, count == 8, count);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = function(map, v[i]);
    if (other) {
        float more[8];
        load8(other + at, more, count == 8, count);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += more[i];
    }
    store8(x + at, v, count == 8, count);
}
KERNEL apply_f(float *x, const float *other, u64 values, int map) { apply(x, other, values, map); }
KERNEL apply_h(half *x, const half *other, u64 values, int map) { apply(x, other, values, map); }

// From one number format to the other: a thread takes eight values.
template <class In, class Out> __device__ inline void convert(const In *x, Out *y, u64 values) {
    u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= values) return;
    int count = values - at < 8 ? (int)(values - at) : 8;
    float v[8];
    load8(x + at, v, count == 8, count);
    store8(y + at, v, count == 8, count);
}
KERNEL convert_fh(const float *x, half *y, u64 values) { convert(x, y, values); }
KERNEL convert_hf(const half *x, float *y, u64 values) { convert(x, y, values); }

// y[i] = x[rows[i]], in float: a block a row.
template <class T> __device__ inline void take(const T *x, float *y, const u32 *rows, int features) {
    u64 from = (u64)rows[blockIdx.x] * features, to = (u64)blockIdx.x * features;
    bool whole_rows = features % 8 == 0;
    for (int at = threadIdx.x * 8; at < features; at += blockDim.x * 8) {
        int count = least(8, features - at);
        float v[8];
        load8(x + from + at, v, whole_rows, count);
        store8(y + to + at, v, whole_rows, count);
    }
}
KERNEL take_f(const float *x, float *y, const u32 *rows, int features) { take(x, y, rows, features); }
KERNEL take_h(const half *x, float *y, const u32 *rows, int features) { take(x, y, rows, features); }

// The mean or the largest value of each feature over the rows of each pair: a thread a feature, a row of blocks a pair.
template <class T>
__device__ inline void pool(const T *x, float *y, const u32 *starts, int features, int takes_largest) {
    int feature = blockIdx.x * blockDim.x + threadIdx.x;
    if (feature >= features) return;
    u64 first = starts[blockIdx.y], end = starts[blockIdx.y + 1];
    double sum = 0.0; // float would lose three digits over 8192 rows
    float largest = NEGATIVE_INFINITY;
    for (u64 row = first; row < end; row++) {
        float value = to_float(x[row * features + feature]);
        sum += value;
        if (value > largest || value != value) largest = value; // fmaxf would lose a NaN
    }
    y[(u64)blockIdx.y * features + feature] = takes_largest ? largest : (float)(sum / (double)(end - first));
}
KERNEL pool_f(const float *x, float *y, const u32 *starts, int features, int takes_largest) {
    pool(x, y, starts, features, takes_largest);
}
KERNEL pool_h(const half *x, float *y, const u32 *starts, int features, int takes_largest) {
    pool(x, y, starts, features, takes_largest);
}
