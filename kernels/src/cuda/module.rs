//! The kernels, loaded: compiled by the build where it had the compiler, by NVRTC otherwise.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute, CUmodule};

use super::compile::{self, Compiler, Source};
use super::context::Context;
use super::error::{CudaError, Version};
use super::failure::{Failure, check};
use super::parameters::{KERNELS, Kernel, Parameters, most_shared, usual_shared};
use super::stream::Stream;

/// Kernels as they come with this build.
mod built {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// The CUDA version whose compiler makes what is embedded: an older driver takes none of it.
const COMPILER: Version = Version { major: 13, minor: 0 };

/// What shared memory a kernel may have before it must ask for more.
const USUAL_SHARED: u32 = 48 << 10;

// A kernel whose parameters the host lays out otherwise than the compiler would read another's.
const _: () = assert!(compile::agree(KERNELS, built::ENTRIES), "kernels/cu and cuda/parameters.rs differ");

/// A kernel, in so many blocks, with so many bytes of shared memory beside its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub kernel: &'static Kernel,
    pub blocks: u32,
    pub shared: u32,
}

/// All kernels, ready on one device.
#[derive(Debug)]
pub(super) struct Kernels {
    context: Arc<Context>,
    /// What compiled them, with its version.
    compiler: String,
    modules: Vec<CUmodule>,
    functions: BTreeMap<&'static str, Function>,
}

/// A kernel that is loaded.
#[derive(Clone, Copy, Debug)]
struct Function {
    handle: CUfunction,
    /// Blocks of it that a multiprocessor runs at once.
    resident: u32,
}

// SAFETY: handles of modules and functions may be used by any thread.
unsafe impl Send for Kernels {}
// SAFETY: as above; nothing of it changes once it is made.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads all of them.
    ///
    /// # Errors
    /// If the device takes none of what was compiled, or there is nothing that compiles.
    pub fn load(context: &Arc<Context>) -> Result<Self, CudaError> {
        if !built::IMAGES.is_empty() && context.driver < COMPILER {
            let found = context.driver;
            return Err(CudaError::OldDriver { found, needs: "what is compiled into this runtime", needed: COMPILER });
        }
        context.bind().map_err(|failure| CudaError::refused(context.number(), failure))?;
        let (modules, functions, compiler) = (Vec::new(), BTreeMap::new(), format!("CUDA {COMPILER}"));
        let mut kernels = Self { context: Arc::clone(context), compiler, modules, functions };
        for &(file, image) in built::IMAGES {
            kernels.add(file, image)?;
        }
        if built::IMAGES.is_empty() {
            let (capability, compiler) = (context.capability, Compiler::find()?);
            compiler.check(context.driver)?;
            kernels.compiler = compiler.to_string();
            for &source in built::SOURCES {
                let image = compiler.compile(Source { headers: built::HEADERS, ..source }, capability)?;
                kernels.add(source.file, &image)?;
            }
        }
        for kernel in KERNELS {
            let function = kernels.find(kernel)?;
            kernels.functions.insert(kernel.name, function);
        }
        Ok(kernels)
    }

    fn not_loaded(&self, file: &'static str, reason: String) -> CudaError {
        let &Context { ref name, capability, driver, .. } = &*self.context;
        let (device, name, compiler) = (self.context.number(), name.clone(), self.compiler.clone());
        CudaError::NotLoaded { device, name, capability, file, compiler, driver, reason }
    }

    fn add(&mut self, file: &'static str, image: &[u8]) -> Result<(), CudaError> {
        let mut module = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable; the image says its own length, or ends with zero where it is text.
        let loaded = unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()) };
        check("load them", loaded).map_err(|failure| self.not_loaded(file, failure.said()))?;
        self.modules.push(module);
        Ok(())
    }

    /// How many blocks of a kernel the device runs at once.
    pub fn resident(&self, kernel: &Kernel) -> usize {
        self.functions[kernel.name].resident as usize * self.context.multiprocessors as usize
    }

    /// The function of a kernel, which has as many bytes of parameters as the table says.
    fn find(&self, kernel: &Kernel) -> Result<Function, CudaError> {
        let name = CString::new(kernel.name).unwrap_or_default();
        let mut function = std::ptr::null_mut();
        let found = self.modules.iter().any(|module| {
            // SAFETY: the first pointer is to a local variable, the name ends with zero, the module is loaded.
            let found = unsafe { sys::cuModuleGetFunction(&raw mut function, *module, name.as_ptr()) };
            check("find it", found).is_ok()
        });
        if !found {
            return Err(self.not_loaded(kernel.name, "it is in none of the modules".to_owned()));
        }
        // What a chip has no room for is not launched there.
        let shared = (most_shared(kernel) as u32).min(self.context.shared);
        if shared > USUAL_SHARED {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was found above.
            let set = unsafe { sys::cuFuncSetAttribute(function, attribute, shared as i32) };
            check("give it shared memory", set).map_err(|failure| self.not_loaded(kernel.name, failure.words()))?;
        }
        let (mut resident, threads) = (0, kernel.threads as i32);
        let usual = usual_shared(kernel).min(self.context.shared as usize);
        // Drivers load a kernel when it is first asked about, which is now and not in the first step.
        // SAFETY: the pointer is to a local variable, and the function was found above.
        let asked =
            unsafe { sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut resident, function, threads, usual) };
        check("say how many blocks run at once", asked)
            .map_err(|failure| self.not_loaded(kernel.name, failure.words()))?;
        Ok(Function { handle: function, resident: resident.max(1) as u32 })
    }

    /// Puts a kernel on a stream.
    ///
    /// # Safety
    /// Every address in the parameters is of memory of this device, or mapped for it, that has what the kernel reads there and
    /// room for what it writes; all of it stays until the stream has done it, and nothing else uses what it writes.
    pub unsafe fn launch<P: Parameters>(&self, stream: &Stream, launch: Launch, parameters: &P) -> Result<(), Failure> {
        let Launch { kernel, blocks, shared } = launch;
        assert_eq!(kernel.parameters, size_of::<P>(), "the parameters of {}", kernel.name);
        let function = self.functions[kernel.name].handle;
        let mut bytes = size_of::<P>();
        let mut extra: [*mut c_void; 5] = [
            sys::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize as *mut c_void,
            (&raw const *parameters).cast_mut().cast(),
            sys::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize as *mut c_void,
            (&raw mut bytes).cast(),
            sys::CU_LAUNCH_PARAM_END_AS_INT as usize as *mut c_void,
        ];
        self.context.bind()?;
        let (none, extra) = (std::ptr::null_mut(), extra.as_mut_ptr());
        let (threads, stream) = (kernel.threads, stream.handle());
        // SAFETY: the driver copies the parameters, whose size it is told and checks, before this returns; the caller vouches for
        // what they point at; function and stream live.
        let launched =
            unsafe { sys::cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, none, extra) };
        check(kernel.name, launched)
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let _ = self.context.finish();
        for module in self.modules.drain(..) {
            // SAFETY: it was loaded by this, is unloaded once, and none of its kernels runs any more.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }
}
