// 64 rows of keys or of values, from row `first` of the pair, to shared memory. Rows beyond the pair are zeros: a weight
// of 0 times whatever lay there could be NaN.
template <int DIM>
__device__ inline void load_rows(half *to, const half *from, u64 stride, const Tile &tile, int first) {
    const int PARTS = DIM / 8; // of a row, 16 bytes each
    int keys = tile.shared_count + tile.count;
    for (int i = threadIdx.x; i < TILE * PARTS; i += 128) {
        int key = i / PARTS, part = i % PARTS * 8;
        half *place = to + key * (DIM + 8) + part;
        if (first + key < keys) {
            copy_async(place, from + key_row(tile, first + key) * stride + part);
        } else {
            uint4 zero;
            zero.x = zero.y = zero.z = zero.w = 0;
            *(uint4 *)place = zero;
        }
    }
    copy_group();
}

// On the tensor cores: four warps of 16 queries each, 64 keys at a time. Rows in shared memory are 16 bytes apart more
// than they are long, so that the eight rows of a matrix lie in different banks.
template <int DIM, int BIAS>
__device__ inline void attention_tensor(const half *queries, const half *keys_values, half *out, const Tile *tiles,
                                        const Shape &shape, const Bias<half> &bias) {
    const int LENGTH = DIM + 8;
    __shared__ ALIGNED16 half key_rows[TILE * LENGTH];
    __shared__ ALIGNED16 half value_rows[TILE * LENGTH];
    Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, kv_head = head / (shape.heads / shape.kv_heads);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    u64 query_stride = (u64)shape.heads * DIM, key_stride = 2 * (u64)shape.kv_heads * DIM;
    const half *keys = keys_values + kv_head * DIM, *values = keys + shape.kv_heads * DIM;

    int from, to;
    seen(shape, tile, tile.position, tile.position + tile.queries - 1, from, to);
    from = from / TILE * TILE; // portions begin at the same keys for every tile
    load_rows<DIM>(key_rows, keys, key_stride, tile, from);

    // This lane's two queries.
    int row[2] = {warp * 16 + g, warp * 16 + g + 8};
    u32 query[DIM / 16][4];
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
#pragma unroll
        for (int part = 0; part < 4; part++) {
            int r = row[part % 2];
            u64 place = (tile.query + r) * query_stride + head * DIM + k * 16 + part / 2 * 8 + 2 * t;
            query[k][part] = r < tile.queries ? *(const u32 *)(queries + place) : 0;
        }
    }

    const float LOG2_E = 1.4426950408889634f;
    float result[DIM / 8][4] = {};
    float largest[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {};
    for (int first = from; first < to; first += TILE) {
        load_rows<DIM>(value_rows, values, key_stride, tile, first);
        copy_wait<1>(); // the keys
        __syncthreads();
        float score[TILE / 8][4] = {};
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
#pragma unroll
            for (int n = 0; n < TILE / 8; n += 2) {
                u32 b[4];
                int matrix = lane / 8;
                load_matrices(b, key_rows + ((n + matrix / 2) * 8 + lane % 8) * LENGTH + k * 16 + matrix % 2 * 8);
                multiply<half>(score[n], query[k], b[0], b[1]);
                multiply<half>(score[n + 1], query[k], b[2], b[3]);
            }
        }
        __syncthreads();
        if (first + TILE < to) {
            load_rows<DIM>(key_rows, keys, key_stride, tile, first + TILE);
        } else {
            copy_group();
        }

        // Scores in units of log2, masked.
        float now[2] = {largest[0], largest[1]};
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = first + n * 8 + 2 * t + i % 2, r = row[i / 2], position = tile.position + r;
                bool sees = key < tile.shared_count + tile.count;
                if (shape.mask == MASK_CAUSAL) sees = sees && key <= position;
                if (shape.mask == MASK_WINDOW)
                    sees = sees && key <= position + shape.reach && key >= position - shape.reach;
                float x = score[n][i] * shape.scale;
                if (BIAS != BIAS_NONE && sees && r < tile.queries)
                    x += bias_of(shape, bias, BIAS, head, tile.query + r, position, key_row(tile, key), key);
                score[n][i] = sees ? x * LOG2_E : NEGATIVE_INFINITY;
                now[i / 2] = fmaxf(now[i / 2], score[n][i]);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            now[i] = fmaxf(now[i], __shfl_xor_sync(ALL_LANES, now[i], 1));
            now[i] = fmaxf(now[i], __shfl_xor_sync(ALL_LANES, now[i], 2));
            // A query that has seen nothing yet: anything finite keeps its weights 0 instead of NaN.
            float base = now[i] == NEGATIVE_INFINITY ? 0.0f : now[i];
            float before = exp2f(largest[i] - base);
            largest[i] = now[i];
            sum[i] *= before;
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) result[n][2 * i] *= before, result[n][2 * i + 1] *= before;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                score[n][2 * i] = exp2f(score[n][2 * i] - base);
                score[n][2 * i + 1] = exp2f(score[n][2 * i + 1] - base);
                sum[i] += score[n][2 * i] + score[n][2 * i + 1];
            }
        }

        copy_wait<1>(); // the values
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) {
            u32 weights[4] = {
                pack2<half>(score[2 * k][0], score[2 * k][1]),
                pack2<half>(score[2 * k][2], score[2 * k][3]),
                pack2<half>(score[2 * k + 1][0], score[2 * k + 1][1]),
                pack2<half>(score[2 * k + 1][2], score[2 * k + 1][3]),
            };
#pragma unroll
            for (int n = 0; n < DIM / 8; n += 2) {
                u32 b[4];
                int matrix = lane / 8;
                load_matrices_transposed(
                    b, value_rows + (k * 16 + matrix % 2 * 8 + lane % 8) * LENGTH + (n + matrix / 2) * 8);
                multiply<half>(result[n], weights, b[0], b[1]);
                multiply<half>(result[n + 1], weights, b[2], b[3]);
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], 1);
        sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], 2);
        if (row[i] >= tile.queries) continue;
        float inverse = 1.0f / sum[i];
        half *place = out + (tile.query + row[i]) * query_stride + head * DIM + 2 * t;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
            *(u32 *)(place + n * 8) = pack2<half>(result[n][2 * i] * inverse, result[n][2 * i + 1] * inverse);
    }
}

#define ATTENTION(NAME, DIM, BIAS)                                                                                     \
    KERNEL __launch_bounds__(128)                                                                                      \
    NAME(const half *queries, const half *keys_values, half *out, const Tile *tiles, Shape shape, Bias<half> bias) {   \
        attention_tensor<DIM, BIAS>(queries, keys_values, out, tiles, shape, bias);                                    \
    }
