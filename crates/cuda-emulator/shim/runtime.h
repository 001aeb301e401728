// What a CUDA compiler has built in, for the kernels of one number format.
#pragma once

#include <cmath>
#include <cstdint>

#include "fibers.h"

#define __device__
#define __global__
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define ALIGNED16 __attribute__((aligned(16)))
#define KERNEL static void

#define threadIdx (emulator::block().current->thread)
#define blockIdx (emulator::block().index)
#define blockDim (emulator::block().size)
#define gridDim (emulator::block().grid)

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline unsigned bits_of(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline void __syncthreads() { emulator::meet(emulator::block().barrier); }
inline void __syncwarp() { emulator::meet(emulator::warp().barrier); }

inline float exchange(float value, unsigned from) {
    emulator::Warp &warp = emulator::warp();
    warp.values[emulator::lane()] = value;
    __syncwarp();
    float found = warp.values[from];
    __syncwarp();
    return found;
}
inline float __shfl_xor_sync(unsigned, float value, int distance) { return exchange(value, emulator::lane() ^ distance); }
inline float __shfl_sync(unsigned, float value, int from) { return exchange(value, from); }
inline int __shfl_sync(unsigned, int value, int from) {
    float carried;
    std::memcpy(&carried, &value, 4);
    carried = exchange(carried, from);
    std::memcpy(&value, &carried, 4);
    return value;
}

// Copies happen when they are waited for, not before: who forgets to wait reads what was there.
inline void copy_async(void *to, const void *from) {
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0) emulator::stop("a copy of 16 bytes is not aligned");
    emulator::block().current->copies.back().push_back({to, from});
}
inline void copy_group() { emulator::block().current->copies.push_back({}); }
template <int newest> inline void copy_wait() {
    auto &copies = emulator::block().current->copies;
    // The last group is open and counts for nothing.
    for (size_t i = 0; i + 1 + newest < copies.size(); i++) {
        for (auto &copy : copies[i]) std::memcpy(copy.to, copy.from, 16);
        copies[i].clear();
    }
}

inline void load_four(unsigned (&r)[4], const void *row, bool is_transposed) {
    if ((uintptr_t)row % 16 != 0) emulator::stop("a row of a matrix is not aligned");
    emulator::Warp &warp = emulator::warp();
    unsigned lane = emulator::lane();
    warp.addresses[lane] = row;
    __syncwarp();
    for (int matrix = 0; matrix < 4; matrix++) {
        unsigned word = 0;
        for (int i = 0; i < 2; i++) {
            unsigned in_row = is_transposed ? 2 * (lane % 4) + i : lane / 4;
            unsigned column = is_transposed ? lane / 4 : 2 * (lane % 4) + i;
            word |= (unsigned)((const uint16_t *)warp.addresses[8 * matrix + in_row])[column] << (16 * i);
        }
        r[matrix] = word;
    }
    __syncwarp();
}
inline void load_matrices(unsigned (&r)[4], const void *row) { load_four(r, row, false); }
inline void load_matrices_transposed(unsigned (&r)[4], const void *row) { load_four(r, row, true); }
