//! Compiles the kernels of `crates/cuda` as C++, with a shim in place of what a GPU has. Needs a C++ compiler, which the
//! library and the programs do not: nothing but tests depends on this crate.

fn main() {
    let kernels = "../cuda/kernels";
    println!("cargo:rerun-if-changed={kernels}");
    println!("cargo:rerun-if-changed=shim");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include("shim")
        .include(kernels)
        // Whatever the profile: a warp is 32 fibers, and a thread of a block another.
        .opt_level(2)
        // Checks of `longjmp` know nothing of fibers; and the kernels look at values as words.
        .flag_if_supported("-U_FORTIFY_SOURCE")
        .flag_if_supported("-fno-strict-aliasing")
        // As on a device: no sum is reordered, and products are fused where that is written.
        .flag_if_supported("-ffp-contract=off")
        .flag_if_supported("-Wno-unknown-pragmas")
        .flag_if_supported("-Wno-maybe-uninitialized")
        .file("shim/emulator.cpp")
        .compile("jointly_cuda_emulator");
}
