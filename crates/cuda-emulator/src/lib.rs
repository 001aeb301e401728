//! A device that is none: the kernels of `crates/cuda`, compiled as C++, on the memory and the CPU of this process. Threads
//! of a block are fibers; barriers, shuffles, copies in the background and the tensor cores' products do what they do on
//! a device. Slow, and for tests: it finds mistakes of kernels and of all that calls them, but no race that needs two
//! threads at the same instant, and nothing of CUDA's own libraries.

#![allow(unsafe_code, reason = "memory of a device that is memory of this process")]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use jointly_cuda::{Backend, Device, Failure, FailureKind, Format, Launch, Memory, Product};

unsafe extern "C" {
    fn jointly_emulator_launch(
        half: c_int,
        name: *const c_char,
        grid: *const c_uint,
        threads: c_uint,
        arguments: *mut *mut c_void,
    ) -> c_int;
}

/// As an allocation on a device.
const ALIGNMENT: usize = 256;

/// What a device shall do wrong, to see what is made of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// It has no more memory than this.
    pub memory: Option<usize>,
    /// It is lost after so many launches.
    pub lost_after: Option<usize>,
}

/// A device on the CPU.
pub struct Emulator {
    half: Format,
    faults: Faults,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    allocations: HashMap<u64, usize>,
    used: usize,
    launches: usize,
}

impl Emulator {
    /// A device whose layers multiply in `half`.
    #[must_use]
    pub fn device(half: Format) -> Arc<Device> {
        Self::faulty(half, Faults::default())
    }

    /// A device with faults.
    #[must_use]
    pub fn faulty(half: Format, faults: Faults) -> Arc<Device> {
        Device::new(Box::new(Self { half, faults, state: Mutex::default() }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory at an address that was allocated, or within; an error if there is not so much.
    fn memory_at(&self, address: u64, bytes: usize) -> Result<*mut u8, Failure> {
        let state = self.state();
        let is_inside = |(start, size): (&u64, &usize)| {
            address >= *start && address + bytes as u64 <= *start + *size as u64
        };
        match state.allocations.iter().any(is_inside) {
            true => Ok(std::ptr::with_exposed_provenance_mut(address as usize)),
            false => Err(other(format!("{bytes} bytes at {address:#x} are not allocated"))),
        }
    }
}

fn other(problem: String) -> Failure {
    Failure { kind: FailureKind::Other, problem }
}

fn layout(bytes: usize) -> Result<Layout, Failure> {
    Layout::from_size_align(bytes, ALIGNMENT).map_err(|error| other(error.to_string()))
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let addresses: Vec<u64> = self.state().allocations.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.free(address));
    }
}

impl Backend for Emulator {
    fn name(&self) -> &str {
        "emulator"
    }

    fn half(&self) -> Format {
        self.half
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Failure> {
        let mut state = self.state();
        if self.faults.memory.is_some_and(|most| state.used + bytes > most) {
            let problem = format!("{bytes} bytes more than the {} that are in use", state.used);
            return Err(Failure { kind: FailureKind::Memory, problem });
        }
        // SAFETY: the layout is not empty; a null pointer is checked.
        let pointer = unsafe { alloc(layout(bytes.max(1))?) };
        if pointer.is_null() {
            return Err(Failure { kind: FailureKind::Memory, problem: "malloc gave nothing".into() });
        }
        // NaN in every format: who reads what was never written sees it.
        // SAFETY: as many bytes were just allocated.
        unsafe { pointer.write_bytes(0xff, bytes) };
        let address = pointer.expose_provenance() as u64;
        state.allocations.insert(address, bytes);
        state.used += bytes;
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut state = self.state();
        let Some(bytes) = state.allocations.remove(&address) else { return };
        state.used -= bytes;
        let Ok(layout) = layout(bytes.max(1)) else { return };
        // SAFETY: `allocate` gave it with this layout, and it was still in the list.
        unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address as usize), layout) };
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), Failure> {
        let to = self.memory_at(to, bytes.len())?;
        // SAFETY: so many bytes are allocated there, and nobody else borrows them.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        let from = self.memory_at(from, bytes.len())?;
        // SAFETY: as above.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from, bytes.len()) };
        Ok(())
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Failure> {
        let (to, from) = (self.memory_at(to, bytes)?, self.memory_at(from, bytes)?);
        // SAFETY: both are allocated; allocations do not overlap.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), Failure> {
        let launches = {
            let mut state = self.state();
            state.launches += 1;
            state.launches
        };
        if self.faults.lost_after.is_some_and(|most| launches > most) {
            let problem = format!("lost after {launches} launches");
            return Err(Failure { kind: FailureKind::Lost, problem });
        }
        let name = CString::new(launch.kernel).map_err(|error| other(error.to_string()))?;
        let mut arguments: Vec<*mut c_void> =
            launch.arguments.iter().map(jointly_cuda::Argument::pointer).collect();
        // SAFETY: the name ends in zero, the grid has two numbers, and the arguments are as many and of such types as the
        // kernel declares: the operations of `jointly_cuda`, which call this, see to that as they do for a device.
        let found = unsafe {
            jointly_emulator_launch(
                self.half.number() as c_int,
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.threads,
                arguments.as_mut_ptr(),
            )
        };
        match found {
            0 => Ok(()),
            _ => Err(other(format!("there is no kernel {}", launch.kernel))),
        }
    }

    fn multiply(&self, _: &Product) -> Result<bool, Failure> {
        Ok(false)
    }

    fn memory(&self) -> Result<Memory, Failure> {
        let total = self.faults.memory.unwrap_or(1 << 32) as u64;
        Ok(Memory { free: total - self.state().used as u64, total })
    }
}
