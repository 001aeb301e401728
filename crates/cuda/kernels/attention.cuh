// Attention within each pair of a packed batch. A block takes up to 64 neighbouring queries of one pair
// and one head. The softmax runs along with the products, so that no score is ever written to memory (arXiv 2205.14135).
//
// A row of the result depends on its own pair alone: keys are taken in the same portions from the same start whichever
// queries are beside it, and a key that a query does not see weighs exactly nothing.

#define TILE 64

// Up to TILE queries of one pair, and where its keys are: first those that it shares with other pairs, then its own.
struct Tile {
    int shared_start, shared_count;
    int start, count;
    // The first query: its row in `queries`, and its place in the pair; and how many there are.
    int query, position, queries;
    int unused;
};

// Which keys a query sees.
#define MASK_FULL 0
#define MASK_CAUSAL 1
#define MASK_WINDOW 2

// What is added to the scaled scores.
#define BIAS_NONE 0
#define BIAS_DISTANCE 1     // MPNet: a number for each head and distance
#define BIAS_DISENTANGLED 2 // DeBERTa: products of content and relative position

struct Shape {
    int heads, kv_heads, head_dim;
    float scale;
    int mask, reach;
    int bias;
    // The longest pair; tables by distance have 2 . longest - 1 entries, distance 0 in the middle.
    int longest;
    // BIAS_DISENTANGLED: rows of the table of relative positions.
    int relative_rows;
    int unused;
};

template <class T> struct Bias {
    // [heads, 2 . longest - 1], by key position - query position
    const float *by_distance;
    // [2 . longest - 1], the row of the table by query position - key position
    const int *buckets;
    // [queries, heads, relative_rows] and [keys, heads, relative_rows]; either may be absent
    const T *of_queries, *of_keys;
};

__device__ inline int key_row(const Tile &tile, int key) {
    return key < tile.shared_count ? tile.shared_start + key : tile.start + key - tile.shared_count;
}

// The keys that the queries at `first ..= last` see together.
__device__ inline void seen(const Shape &shape, const Tile &tile, int first, int last, int &from, int &to) {
    int keys = tile.shared_count + tile.count;
    from = shape.mask == MASK_WINDOW ? most(0, first - shape.reach) : 0;
    to = keys;
    if (shape.mask == MASK_CAUSAL) to = least(keys, last + 1);
    if (shape.mask == MASK_WINDOW) to = least(keys, last + 1 + shape.reach);
}

template <class T>
__device__ inline float bias_of(const Shape &shape, const Bias<T> &bias, int kind, int head, int query_row, int query,
                                int row, int key) {
    if (kind == BIAS_DISTANCE)
        return bias.by_distance[(u64)head * (2 * shape.longest - 1) + (shape.longest - 1 + key - query)];
    if (kind == BIAS_DISENTANGLED) {
        int relative = bias.buckets[shape.longest - 1 + query - key];
        float sum = 0.0f;
        if (bias.of_queries)
            sum += to_float(bias.of_queries[((u64)query_row * shape.heads + head) * shape.relative_rows + relative]);
        if (bias.of_keys)
            sum += to_float(bias.of_keys[((u64)row * shape.heads + head) * shape.relative_rows + relative]);
        return sum * shape.scale;
    }
    return 0.0f;
}
