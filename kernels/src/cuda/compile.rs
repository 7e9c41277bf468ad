//! Kernels from their sources, by NVRTC, where the build had no compiler.

use std::ffi::{CString, c_char};
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use super::driver::folders;
use super::error::{CudaError, Version};
use super::parameters::Kernel;

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// Its name.
    pub file: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// The headers that it may include, by name and content.
    pub headers: &'static [(&'static str, &'static str)],
}

/// Whether the compiled kernels have the names and the sizes of parameters that the table has. Where nothing is compiled nothing differs.
pub(super) const fn agree(kernels: &[Kernel], entries: &[(&str, usize)]) -> bool {
    if entries.is_empty() {
        return true;
    }
    let mut index = 0;
    while index < kernels.len() {
        if !has(entries, &kernels[index]) {
            return false;
        }
        index += 1;
    }
    entries.len() == kernels.len()
}

const fn has(entries: &[(&str, usize)], kernel: &Kernel) -> bool {
    let mut index = 0;
    while index < entries.len() {
        let (name, bytes) = entries[index];
        if same(name.as_bytes(), kernel.name.as_bytes()) {
            return bytes == kernel.parameters;
        }
        index += 1;
    }
    false
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// A program of NVRTC.
struct Program(nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was made by NVRTC and is destroyed once.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// NVRTC, of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compiler(Version);

impl std::fmt::Display for Compiler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NVRTC {}", self.0)
    }
}

impl Compiler {
    /// The one that this machine has.
    ///
    /// # Errors
    /// If it has none.
    pub fn find() -> Result<Self, CudaError> {
        // SAFETY: this runs the initialisation of NVRTC's library, which is what the user asked for.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoCompiler { folders: folders() });
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to local variables. It fails for none but pointers of nothing.
        let _ = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
        Ok(Self(Version { major: major.unsigned_abs(), minor: minor.unsigned_abs() }))
    }

    /// That such a driver takes what it makes, which is so with all of its major version and with later ones.
    ///
    /// # Errors
    /// If it is older.
    pub fn check(self, driver: Version) -> Result<(), CudaError> {
        let Self(compiler) = self;
        if driver.major < compiler.major { Err(CudaError::NewCompiler { found: driver, compiler }) } else { Ok(()) }
    }

    /// Compiles a file for chips of this capability: to machine code, so that a driver takes it that is older than the compiler and of
    /// the same major version, and has nothing left to compile.
    ///
    /// # Errors
    /// If it does not take it.
    pub fn compile(self, source: Source, capability: Version) -> Result<Vec<u8>, CudaError> {
        let Self(compiler) = self;
        let failed = |log: String| CudaError::NotCompiled { compiler, file: source.file, capability, log };
        let program = program(source).map_err(|code| failed(format!("{code:?}")))?;
        // Instructions of Hopper alone have an architecture of their own.
        let suffix = if (capability.major, capability.minor) == (9, 0) { "a" } else { "" };
        let options = [
            format!("--gpu-architecture=sm_{}{}{suffix}", capability.major, capability.minor),
            "--std=c++17".to_owned(),
            "--fmad=false".to_owned(),
        ];
        let options = options.map(|option| CString::new(option).unwrap_or_default());
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program lives, and so do as many options as are told, each of which ends with zero.
        let done = unsafe { sys::nvrtcCompileProgram(program.0, options.len() as i32, options.as_ptr()) };
        if done != nvrtcResult::NVRTC_SUCCESS {
            return Err(failed(log(&program)));
        }
        bytes(&program, sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN).map_err(|code| failed(format!("{code:?}")))
    }
}

fn program(source: Source) -> Result<Program, nvrtcResult> {
    let text = |text: &str| CString::new(text).map_err(|_| nvrtcResult::NVRTC_ERROR_INVALID_INPUT);
    let (file, code) = (text(source.file)?, text(source.text)?);
    let (mut names, mut contents) = (Vec::new(), Vec::new());
    for (name, content) in source.headers {
        names.push(text(name)?);
        contents.push(text(content)?);
    }
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
    let (names, contents) = (pointers(&names), pointers(&contents));
    let mut program = ptr::null_mut();
    // SAFETY: the first pointer is to a local variable; the others are to texts that end with zero, as many as are told, which NVRTC
    // copies.
    let made = unsafe {
        sys::nvrtcCreateProgram(
            &raw mut program,
            code.as_ptr(),
            file.as_ptr(),
            names.len() as i32,
            contents.as_ptr(),
            names.as_ptr(),
        )
    };
    if made == nvrtcResult::NVRTC_SUCCESS { Ok(Program(program)) } else { Err(made) }
}

/// One of the things that a program has; a text ends with zero.
fn bytes(
    program: &Program,
    size: unsafe fn(nvrtcProgram, *mut usize) -> nvrtcResult,
    get: unsafe fn(nvrtcProgram, *mut c_char) -> nvrtcResult,
) -> Result<Vec<u8>, nvrtcResult> {
    let mut length = 0;
    // SAFETY: the program lives, and the pointer is to a local variable.
    let asked = unsafe { size(program.0, &raw mut length) };
    if asked != nvrtcResult::NVRTC_SUCCESS {
        return Err(asked);
    }
    let mut bytes = vec![0_u8; length];
    // SAFETY: the program lives, and there is room for as many bytes as NVRTC says that it writes.
    let given = unsafe { get(program.0, bytes.as_mut_ptr().cast()) };
    if given == nvrtcResult::NVRTC_SUCCESS { Ok(bytes) } else { Err(given) }
}

/// The first error that NVRTC tells, on one line.
fn log(program: &Program) -> String {
    const MOST: usize = 120;
    let log = bytes(program, sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let line = log.lines().find(|line| line.contains("error")).unwrap_or("it says nothing");
    line.trim_end_matches('\0').chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::parameters::Blocks;

    #[test]
    fn a_driver_takes_what_a_compiler_of_its_major_version_or_an_older_one_makes() {
        let version = |major, minor| Version { major, minor };
        for (driver, compiler) in [((13, 0), (13, 2)), ((13, 2), (13, 0)), ((13, 0), (12, 9))] {
            let (driver, compiler) = (version(driver.0, driver.1), version(compiler.0, compiler.1));
            assert_eq!(Compiler(compiler).check(driver), Ok(()), "{driver} and {compiler}");
        }
        assert_eq!(
            Compiler(version(13, 2)).check(version(12, 9)).unwrap_err().to_string(),
            "the CUDA driver is for CUDA 12.9, and takes nothing that NVRTC 13.2 compiles; update the driver, install NVRTC 12.9, or \
             use --backend cpu"
        );
    }

    #[test]
    fn compiled_kernels_agree_with_the_table_by_name_size_and_number() {
        let kernel = |name, parameters| Kernel { name, parameters, threads: 32, blocks: Blocks::Any };
        let table = [kernel("one", 8), kernel("two", 16)];
        assert!(agree(&table, &[]), "nothing is compiled");
        assert!(agree(&table, &[("two", 16), ("one", 8)]));
        for entries in [
            &[("one", 8)][..],
            &[("one", 8), ("two", 24)],
            &[("one", 8), ("too", 16)],
            &[("one", 8), ("two", 16), ("three", 8)],
        ] {
            assert!(!agree(&table, entries), "{entries:?}");
        }
    }
}
