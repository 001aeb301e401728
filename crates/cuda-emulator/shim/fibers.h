// The threads of a block as fibers of one thread of the system, which run in turn from one barrier to the next.
#pragma once

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <vector>

struct Index3 {
    unsigned x, y, z;
};

namespace emulator {

// 16 bytes that are to be copied to shared memory.
struct Copy {
    void *to;
    const void *from;
};

struct Fiber {
    jmp_buf place;
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool has_started = false, has_ended = false;
    Index3 thread{0, 0, 0};
    // Copies that have been asked for, by group; the last group is open.
    std::vector<std::vector<Copy>> copies;
};

// Those who meet: a warp or a block. Whoever has ended is not waited for.
struct Barrier {
    int members = 0, arrived = 0;
    unsigned long meetings = 0;
};

struct Warp {
    Barrier barrier;
    float values[32];
    unsigned words[32][8];
    const void *addresses[32];
};

const size_t STACK = 256 << 10;

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    Barrier barrier;
    jmp_buf scheduler;
    Fiber *current = nullptr;
    const std::function<void()> *work = nullptr;
    Index3 index{0, 0, 0}, size{0, 0, 0}, grid{0, 0, 0};
    unsigned long progress = 0;
};

inline Block &block() {
    static thread_local Block block;
    return block;
}

[[noreturn]] inline void stop(const char *why) {
    Block &b = block();
    std::fprintf(stderr, "emulator: %s (block %u,%u of %u,%u)\n", why, b.index.x, b.index.y, b.grid.x, b.grid.y);
    std::abort();
}

// Back to the scheduler, until it is this fiber's turn again.
__attribute__((noinline)) inline void yield() {
    Block &b = block();
    if (_setjmp(b.current->place) == 0) _longjmp(b.scheduler, 1);
}

inline void meet(Barrier &barrier) {
    if (++barrier.arrived >= barrier.members) {
        barrier.arrived = 0;
        barrier.meetings++;
        block().progress++;
        return;
    }
    unsigned long meeting = barrier.meetings;
    while (barrier.meetings == meeting) yield();
}

// One member fewer; the others may have waited for this one.
inline void leave(Barrier &barrier) {
    barrier.members--;
    if (barrier.members > 0 && barrier.arrived >= barrier.members) {
        barrier.arrived = 0;
        barrier.meetings++;
    }
    block().progress++;
}

inline Warp &warp() {
    Block &b = block();
    return b.warps[b.current->thread.x / 32];
}

inline unsigned lane() { return block().current->thread.x % 32; }

// A fiber's life: one thread of one block after another.
inline void live() {
    for (;;) {
        Block &b = block();
        (*b.work)();
        b.current->has_ended = true;
        leave(warp().barrier);
        leave(b.barrier);
        yield();
    }
}

__attribute__((noinline)) inline void resume(Fiber &fiber) {
    Block &b = block();
    b.current = &fiber;
    if (_setjmp(b.scheduler) != 0) return;
    if (fiber.has_started) _longjmp(fiber.place, 1);
    fiber.has_started = true;
    fiber.stack.reset(new char[STACK]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, live, 0);
    setcontext(&fiber.context);
}

inline void run_block(const std::function<void()> &work, int threads) {
    Block &b = block();
    b.work = &work;
    while ((int)b.fibers.size() < threads) b.fibers.emplace_back(new Fiber);
    b.warps.resize((threads + 31) / 32);
    for (auto &warp : b.warps) warp.barrier = Barrier{};
    b.barrier = Barrier{threads, 0, 0};
    for (int i = 0; i < threads; i++) {
        Fiber &fiber = *b.fibers[i];
        fiber.has_ended = false;
        fiber.thread = Index3{(unsigned)i, 0, 0};
        fiber.copies.assign(1, {});
        b.warps[i / 32].barrier.members++;
    }
    int left = threads;
    while (left > 0) {
        unsigned long progress = b.progress;
        left = 0;
        for (int i = 0; i < threads; i++) {
            Fiber &fiber = *b.fibers[i];
            if (fiber.has_ended) continue;
            resume(fiber);
            left += !fiber.has_ended;
        }
        if (left > 0 && progress == b.progress) stop("threads wait for each other at different barriers");
    }
    for (int i = 0; i < threads; i++)
        for (auto &group : b.fibers[i]->copies)
            if (!group.empty()) stop("a thread ended while copies of it were under way");
}

} // namespace emulator
