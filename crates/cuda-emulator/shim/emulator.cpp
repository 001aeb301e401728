// The kernels of crates/cuda in each of the three number formats, and a launch by name.

#include "runtime.h"

namespace in_f32 {
#define HALF 0
#include "device.cuh"
#include "attention.cuh"
#include "attention_plain.cu"
#include "product.cu"
#include "rows.cu"
#if HALF != 0
#include "attention_tensor.cu"
#include "attentions.h"
#endif
#include "table.h"
#undef HALF
} // namespace in_f32
#include "undefine.h"

namespace in_bf16 {
#define HALF 1
#include "device.cuh"
#include "attention.cuh"
#include "attention_plain.cu"
#include "product.cu"
#include "rows.cu"
#if HALF != 0
#include "attention_tensor.cu"
#include "attentions.h"
#endif
#include "table.h"
#undef HALF
} // namespace in_bf16
#include "undefine.h"

namespace in_f16 {
#define HALF 2
#include "device.cuh"
#include "attention.cuh"
#include "attention_plain.cu"
#include "product.cu"
#include "rows.cu"
#if HALF != 0
#include "attention_tensor.cu"
#include "attentions.h"
#endif
#include "table.h"
#undef HALF
} // namespace in_f16

// Runs a kernel to its end. `half` is the module's HALF. 0: done; 1: there is no such kernel.
extern "C" int jointly_emulator_launch(int half, const char *name, const unsigned *grid, unsigned threads, void **arguments) {
    auto call = half == 0 ? in_f32::find(name) : half == 1 ? in_bf16::find(name) : in_f16::find(name);
    if (!call) return 1;
    std::function<void()> work = [&] { call(arguments); };
    emulator::Block &block = emulator::block();
    block.grid = Index3{grid[0], grid[1], 1};
    block.size = Index3{threads, 1, 1};
    for (unsigned y = 0; y < grid[1]; y++) {
        for (unsigned x = 0; x < grid[0]; x++) {
            block.index = Index3{x, y, 0};
            emulator::run_block(work, (int)threads);
        }
    }
    return 0;
}
