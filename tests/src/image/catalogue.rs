//! The images of this project: what is in each, put together under `target/images` and written to
//! `target/images/archives`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{Archive, Recipe, shared_libraries, write_archive};
use crate::workspace::{self, Binaries};

/// The example model as a volume image: the files of `examples/models/tiny-moe` at its root.
pub const MODEL_IMAGE: &str = "docker.io/swiftbalancer/tiny-moe:1";
const TEST_POD_IMAGE: &str = "docker.io/swiftbalancer/test-pod:1";

/// The operator's image.
#[must_use]
pub fn operator_image() -> String {
    format!("docker.io/swiftbalancer/operator:{}", env!("CARGO_PKG_VERSION"))
}

/// The runtime's image.
#[must_use]
pub fn runtime_image() -> String {
    format!("docker.io/swiftbalancer/runtime:{}", env!("CARGO_PKG_VERSION"))
}

/// The runtime's image for ranks on GPUs.
#[must_use]
pub fn gpu_runtime_image() -> String {
    format!("docker.io/swiftbalancer/runtime-cuda:{}", env!("CARGO_PKG_VERSION"))
}

/// Installs the pinned NCCL, which the image for GPUs that people use has, and gives its library.
///
/// # Errors
/// If it cannot be installed.
pub fn nccl() -> Result<PathBuf> {
    let script = workspace::root().join("images/nccl.sh");
    let output = Command::new(&script).arg(workspace::target().join("nccl")).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("running {}", script.display()))?;
    ensure!(output.status.success(), "NCCL cannot be installed: {} says why", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Builds the image of the runtime for GPUs; with NCCL if its library is given, which ranks on several nodes need.
///
/// # Errors
/// If a file is missing or cannot be written.
pub fn build_gpu(binaries: &Binaries, nccl: Option<&Path>) -> Result<Archive> {
    build("runtime-cuda", &gpu_runtime_image(), "runtime-cuda", |root| {
        stage_program(root, &binaries.runtime)?;
        stage_program(root, &binaries.download)?;
        nccl.map_or(Ok(()), |nccl| stage_nccl(root, nccl))
    })
}

/// Builds the images of the operator, the runtime and the example model.
///
/// # Errors
/// If a file is missing or cannot be written.
pub fn build_all(binaries: &Binaries) -> Result<Vec<Archive>> {
    Ok(vec![
        build("operator", &operator_image(), "operator", |root| stage_program(root, &binaries.operator))?,
        build("runtime", &runtime_image(), "runtime", |root| {
            stage_program(root, &binaries.runtime)?;
            stage_program(root, &binaries.download)
        })?,
        build("tiny-moe", MODEL_IMAGE, "model", |root| {
            copy_files(&workspace::root().join("examples/models/tiny-moe"), root)
        })?,
    ])
}

/// Builds the image that the test cluster's nodes cannot be without: it holds the pods' namespaces open.
///
/// # Errors
/// If a file is missing or cannot be written.
pub fn build_test_pod(cluster_binaries: &Path) -> Result<Archive> {
    build("test-pod", TEST_POD_IMAGE, "test-pod", |root| {
        fs::create_dir_all(root.join("www"))?;
        fs::copy(cluster_binaries.join("pod"), root.join("pod"))?;
        Ok(())
    })
}

fn build(short: &str, name: &str, recipe: &str, stage: impl FnOnce(&Path) -> Result<()>) -> Result<Archive> {
    let images = workspace::target().join("images");
    let context = images.join(short);
    let root = context.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    stage(&root).with_context(|| format!("putting {name} together"))?;
    let recipe = workspace::root().join(format!("images/{recipe}.Dockerfile"));
    let recipe = Recipe::parse(&fs::read_to_string(&recipe)?).with_context(|| recipe.display().to_string())?;
    write_archive(name, &recipe, &context, &images.join(format!("archives/{short}.tar")))
}

/// The program without its debug information, the libraries it names, and a user without rights.
fn stage_program(root: &Path, program: &Path) -> Result<()> {
    let folder = root.join("usr/local/bin");
    fs::create_dir_all(&folder)?;
    let inside = folder.join(program.file_name().context("a program has a name")?);
    let status = Command::new("strip").arg("--strip-debug").arg("-o").arg(&inside).arg(program).status();
    if !status.context("running strip, which comes with binutils")?.success() {
        bail!("strip {} failed", program.display());
    }
    stage_libraries(root, program)?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "nonroot:x:65532:65532::/:/nonexistent\n")?;
    fs::write(root.join("etc/group"), "nonroot:x:65532:\n")?;
    Ok(())
}

/// The libraries that a program or a library names, where the loader looks for them; gives the folder of the C library, which is
/// one of the loader's own.
fn stage_libraries(root: &Path, of: &Path) -> Result<Option<PathBuf>> {
    let mut own = None;
    for library in shared_libraries(of)? {
        let inside = root.join(library.strip_prefix("/")?);
        let folder = inside.parent().context("a library lies in a folder")?;
        fs::create_dir_all(folder)?;
        fs::copy(&library, &inside).with_context(|| library.display().to_string())?;
        if inside.ends_with("libc.so.6") {
            own = Some(folder.to_owned());
        }
    }
    Ok(own)
}

/// NCCL, under the name by which the runtime asks for it first, and the libraries that it names.
fn stage_nccl(root: &Path, nccl: &Path) -> Result<()> {
    let folder = stage_libraries(root, nccl)?.context("NCCL is linked with the C library")?;
    fs::copy(nccl, folder.join("libnccl.so.2")).with_context(|| nccl.display().to_string())?;
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name())).with_context(|| entry.path().display().to_string())?;
    }
    Ok(())
}
