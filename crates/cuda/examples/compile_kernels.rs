//! Compiles every kernel for the architectures given, as a device's machine would: `compile_kernels sm_80 sm_90`. Needs
//! libnvrtc and no device; `scripts/cuda-kernels.sh` fetches it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;
use std::time::Instant;

use jointly_cuda::{Format, compile, kernels};

fn main() -> ExitCode {
    let architectures: Vec<String> = std::env::args().skip(1).collect();
    if architectures.is_empty() {
        eprintln!("usage: compile_kernels ARCHITECTURE..., as sm_90");
        return ExitCode::from(2);
    }
    let (mut done, mut failed) = (0, 0);
    for architecture in &architectures {
        for format in [Format::F32, Format::Bf16, Format::F16] {
            for module in kernels::modules(format != Format::F32) {
                let began = Instant::now();
                match compile(&module, format, architecture) {
                    Ok(image) => {
                        done += 1;
                        let (bytes, seconds) = (image.len(), began.elapsed().as_secs_f64());
                        println!("{architecture} {format:?} {module}: {bytes} bytes in {seconds:.1} s");
                    }
                    Err(problem) => {
                        failed += 1;
                        eprintln!("{architecture} {format:?} {module}: {problem}");
                    }
                }
            }
        }
    }
    println!("{done} modules compiled, {failed} failed");
    if failed == 0 && done > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
