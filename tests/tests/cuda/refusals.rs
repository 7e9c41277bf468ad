//! What keeps the runtime from serving on a GPU is said in one sentence that names what was found, what is needed and what to do, before
//! an expert is read, and the process ends with a failure. The sentences are the whole last word of the process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use plan::wire::process::{LastWord, exit, variable};
use tempfile::TempDir;
use tests::emulator::Emulator;
use tests::workspace;

use crate::process::{ended, example, local, program};

/// Which libraries a process finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Libraries {
    All,
    /// The driver, and no compiler.
    Driver,
    None,
}

/// Something that is missing or cannot be, and what is said of it.
struct Refusal {
    libraries: Libraries,
    environment: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    /// What the model's configuration says otherwise than that of the example.
    config: &'static [(&'static str, u64)],
    said: &'static str,
}

const FINE: Refusal =
    Refusal { libraries: Libraries::All, environment: &[], arguments: &["--ranks", "1"], config: &[], said: "" };

/// Stands for where libraries were looked for.
const FOLDERS: &str = "{folders}";

const REFUSALS: &[Refusal] = &[
    Refusal {
        libraries: Libraries::None,
        said: "there is no CUDA driver: neither libcuda.so nor libcuda.so.1 is in the system's library folders; run where NVIDIA's \
               driver is, or with --backend cpu",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_DRIVER", "11080")],
        said: "the CUDA driver is for CUDA 11.8, and this runtime needs 12.0; update the driver, or use --backend cpu",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_DEVICES", "0")],
        said: "there is no GPU 0: the CUDA driver shows 0; check CUDA_VISIBLE_DEVICES, or use --backend cpu",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_CAPABILITY", "75")],
        said: "GPU 0 (CUDA model) has compute capability 7.5, and the kernels need 8.0; use a newer GPU or --backend cpu",
        ..FINE
    },
    Refusal {
        libraries: Libraries::Driver,
        said: "this build has no compiled kernels, and NVRTC (libnvrtc.so) is not in {folders} to compile them; build with \
               SWIFTBALANCER_NVCC set, see docs/gpu.md, or install NVRTC",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_DRIVER", "12090")],
        said: "the CUDA driver is for CUDA 12.9, and takes nothing that NVRTC 13.0 compiles; update the driver, install NVRTC 12.9, \
               or use --backend cpu",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_COMPILES", "0")],
        said: "NVRTC 13.0 did not compile attention.cu for compute capability 9.0: attend_f32.cu(1): error: CUDA_MODEL_COMPILES is 0; \
               install one that is made for this GPU, or use --backend cpu",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_LOADS", "0")],
        said: "GPU 0 (CUDA model, compute capability 9.0) takes none of the kernels of attention.cu by NVRTC 13.0 with its driver \
               for CUDA 13.0: CUDA_ERROR_UNSUPPORTED_PTX_VERSION (the provided PTX was compiled with an unsupported \
               toolchain.); update the driver, or use --backend cpu",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_MEMORY_MB", "2")],
        said: "this rank needs @ MiB of its device's memory, @ MiB of that for the weights of the model, and 2.0 MiB of 2.0 MiB are \
               free; serve a smaller model, start more ranks, or use a GPU with more",
        ..FINE
    },
    Refusal {
        environment: &[("CUDA_MODEL_MEMORY_MB", "1024"), ("CUDA_MODEL_OTHERS_MB", "1022")],
        arguments: &["--ranks", "1", "--kv-blocks", "64"],
        said: "this rank needs @ MiB of its device's memory, @ MiB of that for the weights of the model, and 2.0 MiB of 1.0 GiB are \
               free; end what else uses it, or use a GPU with more",
        ..FINE
    },
    Refusal {
        config: &[("hidden_size", 132)],
        said: "the CUDA kernels need widths that are multiples of 8, and a layer has 132; serve this model with --backend cpu",
        ..FINE
    },
    Refusal {
        config: &[("moe_intermediate_size", 60)],
        said: "the CUDA kernels need widths that are multiples of 8, and a feed-forward network has 60; serve this model with \
               --backend cpu",
        ..FINE
    },
    Refusal {
        config: &[("head_dim", 20)],
        said: "the CUDA kernels need widths that are multiples of 8, and an attention head has 20; serve this model with --backend \
               cpu",
        ..FINE
    },
    Refusal {
        config: &[("head_dim", 264)],
        said: "the CUDA kernels take attention heads of 256 elements at most, and this model has 264; serve it with --backend cpu",
        ..FINE
    },
    Refusal {
        config: &[("num_experts", 128), ("num_experts_per_tok", 65)],
        said: "the CUDA kernels take 64 experts of each token at most, and this group has 65; serve another model, or use --backend \
               cpu",
        ..FINE
    },
    Refusal {
        config: &[("num_experts", 1025)],
        said: "the CUDA kernels take 1024 slots of a layer on each rank at most, and this group has 1025; start more ranks, lower the \
               redundancy, or use --backend cpu",
        ..FINE
    },
    Refusal {
        arguments: &["--ranks", "257"],
        said: "the CUDA kernels take 256 ranks at most, and this group has 257; start fewer, or use --backend cpu",
        ..FINE
    },
];

/// A folder with the configuration of the example, and what it says otherwise.
fn model(config: &[(&str, u64)]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let mut said: serde_json::Value = serde_json::from_slice(&fs::read(example().join("config.json"))?)?;
    for &(name, value) in config {
        said[name] = value.into();
    }
    fs::write(folder.path().join("config.json"), said.to_string())?;
    Ok(folder)
}

/// Whether the system has NVRTC of its own, which is found wherever nothing else is.
fn has_compiler() -> bool {
    let listed = Command::new("ldconfig").arg("-p").output();
    listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains("libnvrtc.so"))
}

/// What is said without its amounts of memory in MiB that no setting names.
fn without_amounts(said: &str, expected: &str) -> String {
    if !expected.contains('@') {
        return said.to_owned();
    }
    let mut parts = said.splitn(3, " MiB of ");
    let amount = |part: &str| {
        let (begin, number) = part.rsplit_once(' ').unwrap_or(("", part));
        if number.parse::<f64>().is_ok() { format!("{begin} @") } else { part.to_owned() }
    };
    let [first, second, rest] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    format!("{} MiB of {} MiB of {rest}", amount(first), amount(second))
}

/// That this is said, in one sentence, by a process that ends with a failure.
fn is_said(program: &Path, emulator: &Emulator, refusal: &Refusal) -> Result<()> {
    let Refusal { libraries, environment, arguments, config, said } = refusal;
    let (folder, model) = (tempfile::tempdir()?, model(config)?);
    let (mut command, _) = local(program, "cuda", model.path())?;
    command.args(*arguments).args(["--weights", "seed:1"]);
    command.envs(emulator.environment());
    let path = folder.path().display().to_string();
    match libraries {
        Libraries::All => {}
        Libraries::None => {
            command.env_remove("LD_LIBRARY_PATH");
        }
        Libraries::Driver => {
            for name in ["libcuda.so", "libcuda.so.1"] {
                symlink(emulator.folder().join(name), folder.path().join(name))?;
            }
            command.env("LD_LIBRARY_PATH", &path);
        }
    }
    let last_word = folder.path().join("last-word");
    command.envs(environment.iter().copied()).env(variable::TERMINATION_FILE, &last_word);
    let status = ended(command)?;
    let expected = said.replace(FOLDERS, &format!("LD_LIBRARY_PATH ({path}) nor the system's folders"));
    let found = last_word_of(&last_word)?;
    ensure!(status.code() == Some(exit::FAILED.into()), "{status} instead of a failure that says {expected:?}");
    ensure!(without_amounts(&found, said) == expected, "{found:?} instead of {expected:?}");
    ensure!(found.chars().count() <= 300, "{} characters: {found}", found.chars().count());
    Ok(())
}

/// What a process left there when it ended.
pub fn last_word_of(file: &Path) -> Result<String> {
    Ok(LastWord::from_json(&fs::read(file)?).context("no last word")?.words)
}

/// Each of them.
pub fn all_are_said(emulator: &Emulator) -> Result<()> {
    let program = program()?;
    for refusal in REFUSALS {
        // Where a machine has a driver or a compiler of its own, it is not missing.
        let is_missing = match refusal.libraries {
            Libraries::All => true,
            Libraries::Driver => !has_compiler(),
            Libraries::None => kernels::cuda::devices().is_err(),
        };
        if is_missing {
            let Refusal { environment, config, said, .. } = refusal;
            is_said(&program, emulator, refusal).with_context(|| format!("{environment:?} {config:?}, {said:?}"))?;
        }
    }
    Ok(())
}

/// The page about GPUs says each of them as it is said, with the example's numbers.
pub fn the_page_says_them(_: &Emulator) -> Result<()> {
    let page = fs::read_to_string(workspace::root().join("docs/gpu.md"))?;
    for Refusal { said, .. } in REFUSALS {
        let said = said.replace(FOLDERS, "the system's library folders").replace('@', "...");
        ensure!(page.contains(&format!("`{said}`")), "docs/gpu.md does not say `{said}`");
    }
    Ok(())
}
