// For any head of at most 256 values, in any number format: a warp a query, a lane a key.
template <class T>
__device__ inline void attention_plain(const T *queries, const T *keys_values, T *out, const Tile *tiles, Shape shape,
                                       Bias<T> bias) {
    const int MOST = 256 / 32;
    __shared__ float query_values[4][256];
    __shared__ float weights[4][32];
    __shared__ int rows[4][32];
    Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, kv_head = head / (shape.heads / shape.kv_heads), dim = shape.head_dim;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u64 query_stride = (u64)shape.heads * dim, key_stride = 2 * (u64)shape.kv_heads * dim;
    const T *keys = keys_values + kv_head * dim, *values = keys + shape.kv_heads * dim;
    for (int i = warp; i < tile.queries; i += 4) {
        u64 place = (tile.query + i) * query_stride + head * dim;
        for (int d = lane; d < dim; d += 32) query_values[warp][d] = to_float(queries[place + d]);
        __syncwarp();
        int position = tile.position + i, from, to;
        seen(shape, tile, position, position, from, to);
        float largest = NEGATIVE_INFINITY, sum = 0.0f, result[MOST] = {};
        for (int first = from; first < to; first += 32) {
            int key = first + lane, row = 0;
            float score = NEGATIVE_INFINITY;
            if (key < to) {
                row = key_row(tile, key);
                const T *vector = keys + row * key_stride;
                float product = 0.0f;
                for (int d = 0; d < dim; d++) product += query_values[warp][d] * to_float(vector[d]);
                score = product * shape.scale + bias_of(shape, bias, shape.bias, head, tile.query + i, position, row, key);
            }
            float now = fmaxf(largest, warp_max(score));
            float weight = key < to ? expf(score - now) : 0.0f;
            float before = expf(largest - now); // 0 at first
            sum = sum * before + warp_sum(weight);
            largest = now;
#pragma unroll
            for (int c = 0; c < MOST; c++) result[c] *= before;
            weights[warp][lane] = weight;
            rows[warp][lane] = row;
            __syncwarp();
            for (int j = 0; j < least(32, to - first); j++) {
                const T *vector = values + rows[warp][j] * key_stride;
#pragma unroll
                for (int c = 0; c < MOST; c++)
                    if (c * 32 + lane < dim) result[c] += weights[warp][j] * to_float(vector[c * 32 + lane]);
            }
            __syncwarp(); // before the next keys' weights take their place
        }
#pragma unroll
        for (int c = 0; c < MOST; c++)
            if (c * 32 + lane < dim) round_to(result[c] / sum, out[place + c * 32 + lane]);
        __syncwarp();
    }
}
KERNEL attention_f(const float *queries, const float *keys_values, float *out, const Tile *tiles, Shape shape,
                   Bias<float> bias) {
    attention_plain(queries, keys_values, out, tiles, shape, bias);
}
KERNEL attention_h(const half *queries, const half *keys_values, half *out, const Tile *tiles, Shape shape,
                   Bias<half> bias) {
    attention_plain(queries, keys_values, out, tiles, shape, bias);
}
