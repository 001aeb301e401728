// y = x . w' + bias + other, where cuBLASLt has no algorithm: odd sizes. A thread a value. Strides are in values.
template <class In, class Out>
__device__ inline void product(const In *x, const In *w, const Out *bias, const Out *other, Out *y, int m, int n, int k,
                               int x_stride, int w_stride, int y_stride, u64 x_batch, u64 w_batch, u64 y_batch) {
    u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (u64)m * n) return;
    u64 row = index / n, column = index % n, batch = blockIdx.y;
    x += batch * x_batch + row * x_stride;
    w += batch * w_batch + column * w_stride;
    float sum = 0.0f;
    for (int i = 0; i < k; i++) sum += to_float(x[i]) * to_float(w[i]);
    u64 at = batch * y_batch + row * y_stride + column;
    if (bias) sum += to_float(bias[column]);
    if (other) sum += to_float(other[at]);
    round_to(sum, y[at]);
}
KERNEL product_ff(const float *x, const float *w, const float *bias, const float *other, float *y, int m, int n, int k,
                  int x_stride, int w_stride, int y_stride, u64 x_batch, u64 w_batch, u64 y_batch) {
    product(x, w, bias, other, y, m, n, k, x_stride, w_stride, y_stride, x_batch, w_batch, y_batch);
}
KERNEL product_hf(const half *x, const half *w, const float *bias, const float *other, float *y, int m, int n, int k,
                  int x_stride, int w_stride, int y_stride, u64 x_batch, u64 w_batch, u64 y_batch) {
    product(x, w, bias, other, y, m, n, k, x_stride, w_stride, y_stride, x_batch, w_batch, y_batch);
}
KERNEL product_hh(const half *x, const half *w, const half *bias, const half *other, half *y, int m, int n, int k,
                  int x_stride, int w_stride, int y_stride, u64 x_batch, u64 w_batch, u64 y_batch) {
    product(x, w, bias, other, y, m, n, k, x_stride, w_stride, y_stride, x_batch, w_batch, y_batch);
}
