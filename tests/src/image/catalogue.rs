//! The images of this project: what is in each, put together under `target/images` and written to
//! `target/images/archives`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

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

/// Builds the images of the operator, the runtime and the example model.
///
/// # Errors
/// If a file is missing or cannot be written.
pub fn build_all(binaries: &Binaries) -> Result<Vec<Archive>> {
    Ok(vec![
        build("operator", &operator_image(), "operator", |root| stage_program(root, &binaries.operator))?,
        build("runtime", &runtime_image(), "runtime", |root| stage_program(root, &binaries.runtime))?,
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
    for library in shared_libraries(program)? {
        let inside = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(inside.parent().context("a library lies in a folder")?)?;
        fs::copy(&library, &inside).with_context(|| library.display().to_string())?;
    }
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "nonroot:x:65532:65532::/:/nonexistent\n")?;
    fs::write(root.join("etc/group"), "nonroot:x:65532:\n")?;
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name())).with_context(|| entry.path().display().to_string())?;
    }
    Ok(())
}
