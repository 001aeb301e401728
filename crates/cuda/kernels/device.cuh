// What the kernels have in common: number formats, eight values at a time, sums over a warp and a block, and the few
// instructions that C++ has no words for. Nothing is included: the compiler that is loaded at run time needs no headers.
//
// HALF says what "half" is in this module: 0 float, 1 bfloat16, 2 binary16. Sums are float whatever it is.
//
// Without a CUDA compiler (`__CUDACC__`), the instructions come from the emulator's shim, which runs the same kernels on
// a CPU.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void
#define ALIGNED16 __align__(16)

__device__ inline float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ inline float to_float(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ inline void round_to(float x, bf16 &y) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
__device__ inline void round_to(float x, f16 &y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

// Two values in one word, the first in the low half.
template <class T> __device__ inline u32 pack2(float low, float high);
template <> __device__ inline u32 pack2<bf16>(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
template <> __device__ inline u32 pack2<f16>(float low, float high) {
    u32 word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ inline u32 shared_address(const void *pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// 16 bytes from global to shared memory, without waiting.
__device__ inline void copy_async(void *to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// The copies since the last call are a group.
__device__ inline void copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `newest` groups are under way.
template <int newest> __device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory");
}

// Four matrices of 8 x 8 halves: lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(u32 (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ inline void load_matrices_transposed(u32 (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a . b on the tensor cores: a is 16 x 16, b 16 x 8, c 16 x 8. With g = lane / 4 and t = lane % 4, a lane holds
// a[g][2t ..], a[g + 8][2t ..], a[g][2t + 8 ..], a[g + 8][2t + 8 ..]; b[2t ..][g], b[2t + 8 ..][g]; c[g][2t ..],
// c[g + 8][2t ..].
template <class T> __device__ inline void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <> __device__ inline void multiply<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ inline void multiply<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
#include "formats.h"
#endif

#if HALF == 0
typedef float half;
#elif HALF == 1
typedef bf16 half;
#else
typedef f16 half;
#endif

#define ALL_LANES 0xffffffffu
#define NEGATIVE_INFINITY (-__int_as_float(0x7f800000))

__device__ inline float to_float(float x) { return x; }
__device__ inline void round_to(float x, float &y) { y = x; }

__device__ inline int least(int a, int b) { return a < b ? a : b; }
__device__ inline int most(int a, int b) { return a > b ? a : b; }

// Up to eight values, `count` of them; `whole` says that the address is that of a vector and count is 8.
__device__ inline void load8(const float *from, float (&v)[8], bool whole, int count) {
    if (whole) {
        float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = i < count ? from[i] : 0.0f;
    }
}
template <class T> __device__ inline void load8(const T *from, float (&v)[8], bool whole, int count) {
    if (whole) {
        uint4 words = *(const uint4 *)from;
        u32 w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            T low, high;
            low.bits = (u16)w[i], high.bits = (u16)(w[i] >> 16);
            v[2 * i] = to_float(low), v[2 * i + 1] = to_float(high);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = i < count ? to_float(from[i]) : 0.0f;
    }
}

__device__ inline void store8(float *to, const float (&v)[8], bool whole, int count) {
    if (whole) {
        float4 a, b;
        a.x = v[0], a.y = v[1], a.z = v[2], a.w = v[3], b.x = v[4], b.y = v[5], b.z = v[6], b.w = v[7];
        ((float4 *)to)[0] = a, ((float4 *)to)[1] = b;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) to[i] = v[i];
    }
}
template <class T> __device__ inline void store8(T *to, const float (&v)[8], bool whole, int count) {
    if (whole) {
        uint4 words;
        words.x = pack2<T>(v[0], v[1]), words.y = pack2<T>(v[2], v[3]);
        words.z = pack2<T>(v[4], v[5]), words.w = pack2<T>(v[6], v[7]);
        *(uint4 *)to = words;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) round_to(v[i], to[i]);
    }
}

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Over a block of whole warps, at most 32; every thread gets the sum.
__device__ inline float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads(); // whoever still reads the parts of an earlier sum
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) sum += parts[warp];
    return sum;
}

// The functions of `Map` in crates/kernels, by the numbers that src/device.rs gives them.
__device__ inline float function(int map, float x) {
    switch (map) {
    case 1: // GELU
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case 2: // GELU, the tanh form; 1 + tanh(y) = 2 / (1 + exp(-2 y))
        return x / (1.0f + expf(-2.0f * 0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case 3: // SiLU
        return x / (1.0f + expf(-x));
    case 4: // ReLU; NaN stays NaN
        return x < 0.0f ? 0.0f : x;
    case 5:
        return tanhf(x);
    case 6: // sigmoid
        return 1.0f / (1.0f + expf(-x));
    default:
        return x;
    }
}
