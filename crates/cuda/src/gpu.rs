//! A device of the machine, through CUDA's driver. What it needs is loaded when it is first asked for.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::result::{self, DriverError, ctx, device, mem_pool, module, primary_ctx, stream};
use cudarc::driver::sys;
use cudarc::nvrtc;

use crate::backend::{Argument, Backend, Failure, FailureKind, Format, Launch, Memory, Product};
use crate::kernels;
use crate::lt::Lt;

/// Ampere: the first with bfloat16 on its tensor cores, and with copies to shared memory in the background.
const LEAST_CAPABILITY: i32 = 8;
/// Memory that the device reads while this process goes on: what is uploaded in a forward pass is far less.
const STAGING: usize = 8 << 20;
/// Begins a file of compiled kernels; then the length and a hash of what follows.
const MAGIC: &[u8; 8] = b"jcubin1\n";

/// What of CUDA this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// How many devices.
    pub devices: usize,
}

impl Presence {
    /// Looks for the driver and the libraries.
    ///
    /// # Errors
    /// [`FailureKind::Absent`], with what is missing and what to do.
    pub fn find() -> Result<Self, Failure> {
        let absent = |problem: String| Failure { kind: FailureKind::Absent, problem };
        // SAFETY: loads libraries of those names, whose initialisers run: CUDA's do nothing that matters here.
        let [driver, compiler, products] = unsafe {
            [
                sys::is_culib_present(),
                nvrtc::sys::is_culib_present(),
                cudarc::cublaslt::sys::is_culib_present(),
            ]
        };
        if !driver {
            return Err(absent("this machine has no NVIDIA driver (libcuda.so.1)".into()));
        }
        for (is_there, library, package) in [
            (compiler, "libnvrtc.so.13", "nvidia-cuda-nvrtc"),
            (products, "libcublasLt.so.13", "nvidia-cublas"),
        ] {
            if !is_there {
                return Err(absent(format!(
                    "{library} (or of CUDA 12) is not found; it comes with the CUDA toolkit, or the Python package {package}, whose \
                     folder then belongs in LD_LIBRARY_PATH"
                )));
            }
        }
        let said = |error: DriverError| absent(format!("the NVIDIA driver says {error}"));
        result::init().map_err(said)?;
        let devices = device::get_count().map_err(said)? as usize;
        if devices == 0 {
            return Err(absent("the NVIDIA driver finds no device".into()));
        }
        Ok(Self { devices })
    }
}

/// A device of the machine.
pub struct Gpu {
    name: String,
    half: Format,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// `sm_90`, for the compiler.
    architecture: String,
    cache: Option<PathBuf>,
    lt: Lt,
    modules: Mutex<Modules>,
    staging: Mutex<Staging>,
}

#[derive(Default)]
struct Modules {
    loaded: HashMap<String, sys::CUmodule>,
    kernels: HashMap<String, sys::CUfunction>,
}

/// Pinned memory: the part before `used` may still be read by the device.
struct Staging {
    memory: *mut u8,
    used: usize,
}

// SAFETY: handles of CUDA may be used from any thread that has made the context its own, which every operation does first;
// what is changed lies behind a mutex.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

/// What the driver said of something that was tried.
fn failure(error: DriverError, what: &str) -> Failure {
    // Its words are asked of the driver, which is there if it gave an error.
    Failure { kind: kind(error), problem: format!("{what}: {error}") }
}

fn kind(error: DriverError) -> FailureKind {
    use sys::CUresult as Code;
    match error.0 {
        Code::CUDA_ERROR_OUT_OF_MEMORY => FailureKind::Memory,
        // After these the context answers nothing any more.
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Code::CUDA_ERROR_INVALID_PC
        | Code::CUDA_ERROR_MISALIGNED_ADDRESS
        | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Code::CUDA_ERROR_LAUNCH_FAILED
        | Code::CUDA_ERROR_LAUNCH_TIMEOUT
        | Code::CUDA_ERROR_ASSERT
        | Code::CUDA_ERROR_ECC_UNCORRECTABLE
        | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | Code::CUDA_ERROR_DEVICE_UNAVAILABLE
        | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | Code::CUDA_ERROR_DEINITIALIZED
        | Code::CUDA_ERROR_SYSTEM_NOT_READY
        | Code::CUDA_ERROR_UNKNOWN => FailureKind::Lost,
        _ => FailureKind::Other,
    }
}

impl Gpu {
    /// Opens the device of this number; its layers multiply in `half`. Compiled kernels are kept in the folder `cache`, if
    /// there is one: whoever can write there can change results.
    ///
    /// # Errors
    /// [`FailureKind::Absent`] for a device that is not there or too old; what the driver and the compiler say.
    pub fn open(number: usize, half: Format, cache: Option<&Path>) -> Result<Self, Failure> {
        let absent = |problem: String| Failure { kind: FailureKind::Absent, problem };
        let Presence { devices } = Presence::find()?;
        if number >= devices {
            return Err(absent(format!(
                "there is no device {number}; the driver finds {devices}, counted from 0"
            )));
        }
        let tried = |what| move |error| failure(error, what);
        let device = device::get(number as c_int).map_err(tried("opening the device"))?;
        let model = device::get_name(device).map_err(tried("asking for the device's name"))?;
        let attribute = |attribute| {
            // SAFETY: the device was just found.
            unsafe { device::get_attribute(device, attribute) }
                .map_err(tried("asking what the device can do"))
        };
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if major < LEAST_CAPABILITY {
            return Err(absent(format!(
                "{model} has compute capability {major}.{minor}; {LEAST_CAPABILITY}.0 is the least (Ampere, 2020)"
            )));
        }
        // SAFETY: the device was just found; the context is released when this is dropped.
        let context =
            unsafe { primary_ctx::retain(device) }.map_err(tried("opening the device's context"))?;
        // SAFETY: the context was just opened.
        unsafe { ctx::set_current(context) }.map_err(tried("entering the device's context"))?;
        let stream = stream::create(stream::StreamKind::NonBlocking).map_err(tried("opening a stream"))?;
        // Memory that was given back stays with the process, for the next batch.
        let mut threshold = u64::MAX;
        // SAFETY: the device was just found, and the attribute is a number of 64 bits.
        unsafe {
            let pool = device::get_default_mem_pool(device).map_err(tried("asking for the memory pool"))?;
            mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                std::ptr::from_mut(&mut threshold).cast(),
            )
            .map_err(tried("keeping memory"))?;
        }
        // SAFETY: the pointer is checked by the call, and freed when this is dropped.
        let memory = unsafe { result::malloc_host(STAGING, 0) }.map_err(tried("pinning memory"))?;
        let gpu = Self {
            name: format!("cuda:{number} ({model})"),
            half,
            device,
            context,
            stream,
            architecture: format!("sm_{major}{minor}"),
            cache: cache.map(Path::to_path_buf),
            lt: Lt::new(stream)?,
            modules: Mutex::default(),
            staging: Mutex::new(Staging { memory: memory.cast(), used: 0 }),
        };
        // What every model needs is compiled now: who waits later waits for a client.
        gpu.kernel("norm_ff")?;
        Ok(gpu)
    }

    /// Makes this thread speak to this device.
    fn enter(&self) -> Result<(), Failure> {
        // SAFETY: the context lives as long as this.
        unsafe { ctx::set_current(self.context) }
            .map_err(|error| failure(error, "entering the device's context"))
    }

    fn synchronize(&self) -> Result<(), Failure> {
        // SAFETY: the stream lives as long as this.
        unsafe { stream::synchronize(self.stream) }.map_err(|error| failure(error, "waiting for the device"))
    }

    /// The kernel of that name, compiled if it is not yet.
    fn kernel(&self, name: &str) -> Result<sys::CUfunction, Failure> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = modules.kernels.get(name) {
            return Ok(*kernel);
        }
        let module_name = kernels::module_of(name);
        let module = match modules.loaded.get(module_name) {
            Some(module) => *module,
            None => {
                let module = self.module(module_name)?;
                modules.loaded.insert(module_name.to_string(), module);
                module
            }
        };
        let symbol = CString::new(name).map_err(|error| other(format!("{name}: {error}")))?;
        // SAFETY: the module is never unloaded.
        let kernel = unsafe { module::get_function(module, symbol) }
            .map_err(|error| failure(error, &format!("looking for the kernel {name}")))?;
        modules.kernels.insert(name.to_string(), kernel);
        Ok(kernel)
    }

    /// A module, from the cache if it is there and whole.
    fn module(&self, name: &str) -> Result<sys::CUmodule, Failure> {
        let source = kernels::source(name);
        let options = options(self.half, &self.architecture);
        let load = |image: &[u8]| {
            // SAFETY: the image is one that the compiler made, whole; it is copied.
            unsafe { module::load_data(image.as_ptr().cast::<c_void>()) }
        };
        let path = self.cache.as_ref().map(|folder| {
            let (mut major, mut minor) = (0, 0);
            // SAFETY: two numbers to write to. If it fails they are 0, which is as good a name.
            _ = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
            let key = hash(&(&source, &options, major, minor));
            folder.join(format!("{name}-{}-{key:016x}.cubin", self.architecture))
        });
        if let Some(image) = path.as_deref().and_then(read_image)
            && let Ok(module) = load(&image)
        {
            return Ok(module);
        }
        let image = compile_source(&source, &options)
            .map_err(|problem| other(format!("compiling {name}: {problem}")))?;
        if let Some(path) = &path {
            // Without it the next start takes longer, and nothing else.
            _ = write_image(path, &image);
        }
        load(&image).map_err(|error| failure(error, &format!("loading the kernels {name}")))
    }
}

fn other(problem: String) -> Failure {
    Failure { kind: FailureKind::Other, problem }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The content of a file that [`write_image`] wrote, if it is whole.
fn read_image(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (header, image) = bytes.split_at_checked(24)?;
    let number = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let is_whole =
        header.starts_with(MAGIC) && number(8)? == image.len() as u64 && number(16)? == hash(&image);
    is_whole.then(|| image.to_vec())
}

fn write_image(path: &Path, image: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    let header = [*MAGIC, (image.len() as u64).to_le_bytes(), hash(&image).to_le_bytes()].concat();
    let temporary = path.with_added_extension(std::process::id().to_string());
    fs::write(&temporary, [&header[..], image].concat())?;
    fs::rename(&temporary, path)
}

fn options(half: Format, architecture: &str) -> [String; 3] {
    let architecture = format!("--gpu-architecture={architecture}");
    [architecture, format!("-DHALF={}", half.number()), "--std=c++17".to_string()]
}

/// Machine code of a module of [`kernels`], for an architecture (`sm_90`). Needs the compiler, and no device.
///
/// # Errors
/// That there is no compiler, or what it says.
pub fn compile(module: &str, half: Format, architecture: &str) -> Result<Vec<u8>, String> {
    // SAFETY: as in `Presence::find`.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err("libnvrtc is not found".to_string());
    }
    compile_source(&kernels::source(module), &options(half, architecture))
}

/// Machine code of a source.
fn compile_source(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
    let source = CString::new(source).map_err(|error| error.to_string())?;
    let program =
        nvrtc::result::create_program(&source, Some(c"kernels.cu")).map_err(|error| format!("{error:?}"))?;
    // SAFETY: the program was just made, and is used until it is destroyed below; sizes are asked for before they are filled.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, options);
        let outcome = match compiled {
            Ok(()) => {
                let mut size = 0;
                let asked = nvrtc::sys::nvrtcGetCUBINSize(program, &mut size).result();
                let mut image = vec![0_u8; size];
                asked
                    .and_then(|()| nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()).result())
                    .map(|()| image)
                    .map_err(|error| format!("{error:?}"))
            }
            Err(error) => {
                let log = nvrtc::result::get_program_log(program).unwrap_or_default();
                let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
                let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
                Err(format!("{error:?}: {}", log.lines().take(5).collect::<Vec<_>>().join("; ")))
            }
        };
        _ = nvrtc::result::destroy_program(program);
        outcome
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // A device that is lost answers none of these, and there is nobody to tell.
        if self.enter().is_err() {
            return;
        }
        let staging = self.staging.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: each was opened with this and is used by nothing else; the stream has done what it was asked for.
        unsafe {
            _ = stream::synchronize(self.stream);
            self.lt.close();
            _ = result::free_host(staging.memory.cast());
            _ = stream::destroy(self.stream);
            _ = primary_ctx::release(self.device);
        }
    }
}

impl Backend for Gpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn half(&self) -> Format {
        self.half
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Failure> {
        self.enter()?;
        // SAFETY: the memory is used in the order of this stream alone.
        unsafe { result::malloc_async(self.stream, bytes) }
            .map_err(|error| failure(error, &format!("allocating {bytes} bytes")))
    }

    fn free(&self, address: u64) {
        if self.enter().is_ok() {
            // SAFETY: `allocate` gave it, and nothing is asked of it after this.
            _ = unsafe { result::free_async(address, self.stream) };
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.enter()?;
        let tried = |error| failure(error, &format!("copying {} bytes to the device", bytes.len()));
        if bytes.len() > STAGING / 4 {
            // SAFETY: the bytes outlive the copy, which is waited for; as many are allocated.
            unsafe { result::memcpy_htod_async(to, bytes, self.stream) }.map_err(tried)?;
            return self.synchronize();
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.used + bytes.len() > STAGING {
            self.synchronize()?;
            staging.used = 0;
        }
        // SAFETY: there is room for the bytes behind `used`, and nobody reads there; they stay until the stream was waited for.
        unsafe {
            let pinned = staging.memory.add(staging.used);
            pinned.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            let pinned = std::slice::from_raw_parts(pinned, bytes.len());
            result::memcpy_htod_async(to, pinned, self.stream).map_err(tried)?;
        }
        staging.used += bytes.len().next_multiple_of(256);
        Ok(())
    }

    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        self.enter()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the bytes are written until the stream was waited for, which is before they are lent again.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) }
            .map_err(|error| failure(error, &format!("copying {} bytes from the device", bytes.len())))?;
        self.synchronize()?;
        staging.used = 0;
        Ok(())
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Failure> {
        self.enter()?;
        // SAFETY: both are allocated, and do not overlap.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(|error| failure(error, "copying on the device"))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), Failure> {
        self.enter()?;
        let kernel = self.kernel(launch.kernel)?;
        let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(Argument::pointer).collect();
        let [x, y] = launch.grid;
        // SAFETY: the arguments are as many and of such types as the kernel declares, which the operations see to; they are
        // copied by the call.
        unsafe {
            result::launch_kernel(kernel, (x, y, 1), (launch.threads, 1, 1), 0, self.stream, &mut arguments)
        }
        .map_err(|error| failure(error, &format!("running {}", launch.kernel)))
    }

    fn multiply(&self, product: &Product) -> Result<bool, Failure> {
        self.enter()?;
        self.lt.multiply(product)
    }

    fn memory(&self) -> Result<Memory, Failure> {
        self.enter()?;
        let (free, total) =
            result::mem_get_info().map_err(|error| failure(error, "asking for the device's memory"))?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_says_so_and_does_not_panic() {
        match Gpu::open(1000, Format::Bf16, None) {
            Err(Failure { kind: FailureKind::Absent, problem }) => {
                assert!(
                    problem.contains("driver") || problem.contains("not found") || problem.contains("1000"),
                    "{problem}"
                );
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("there is a device 1000"),
        }
    }

    #[test]
    fn a_damaged_image_is_none() {
        let folder = std::env::temp_dir().join(format!("jointly-cuda-{}", std::process::id()));
        let path = folder.join("a.cubin");
        assert_eq!(read_image(&path), None);
        write_image(&path, b"machine code").unwrap();
        assert_eq!(read_image(&path).as_deref(), Some(&b"machine code"[..]));
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &[&whole[..30], b"x", &whole[31..]].concat(), b"jcubin1\n"]
        {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read_image(&path), None);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_some_failures_are_final() {
        let kind = |code| kind(DriverError(code));
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY), FailureKind::Memory);
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), FailureKind::Lost);
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_INVALID_VALUE), FailureKind::Other);
    }
}
