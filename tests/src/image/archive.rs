//! Writes an image of one layer as an OCI archive (OCI image specification 1.1, image layout in a tar file).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use plan::words::hexadecimal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::recipe::Recipe;

/// An image in a file.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Its full name with tag, `docker.io/...:tag`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Digest of its manifest: equal contents have equal digests.
    pub digest: String,
    /// Size of its layer in bytes.
    pub layer_bytes: u64,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Builds `recipe` from the folder `context` and writes the image to `path`.
///
/// # Errors
/// If a file cannot be read or written, or is neither a plain file nor a folder.
pub fn write_archive(name: &str, recipe: &Recipe, context: &Path, path: &Path) -> Result<Archive> {
    let layer = layer(recipe, context).with_context(|| format!("building {name}"))?;
    let mut blobs = Vec::new();
    let mut blob = |media_type: &str, bytes: Vec<u8>| -> Value {
        let digest = format!("sha256:{}", hexadecimal(&Sha256::digest(&bytes)));
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        blobs.push((digest, bytes));
        descriptor
    };
    let layer_bytes = layer.len() as u64;
    let layer = blob(LAYER, layer);
    let config = blob(CONFIG, serde_json::to_vec(&image_config(recipe, &layer["digest"]))?);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut manifest = blob(MANIFEST, serde_json::to_vec(&manifest)?);
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    // The first names the image to containerd, the second to everything else.
    manifest["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
    });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });

    let folder = path.parent().context("an archive needs a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut archive = tar::Builder::new(&mut file);
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut archive, "index.json", &serde_json::to_vec(&index)?, 0o644)?;
    for (digest, bytes) in &blobs {
        append(&mut archive, &format!("blobs/{}", digest.replace(':', "/")), bytes, 0o644)?;
    }
    archive.finish()?;
    drop(archive);
    file.flush()?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(Archive { name: name.to_owned(), path: path.to_owned(), digest, layer_bytes })
}

fn image_config(recipe: &Recipe, layer: &Value) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut config = serde_json::Map::new();
    if let Some(user) = &recipe.user {
        config.insert("User".into(), json!(user));
    }
    if !recipe.environment.is_empty() {
        config.insert("Env".into(), json!(recipe.environment));
    }
    if !recipe.entrypoint.is_empty() {
        config.insert("Entrypoint".into(), json!(recipe.entrypoint));
    }
    if !recipe.command.is_empty() {
        config.insert("Cmd".into(), json!(recipe.command));
    }
    if !recipe.ports.is_empty() {
        let ports: serde_json::Map<_, _> = recipe.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        config.insert("ExposedPorts".into(), ports.into());
    }
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    })
}

/// The layer's tar file: names in order, no time, owned by root.
fn layer(recipe: &Recipe, context: &Path) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (source, destination) in &recipe.copies {
        append_folder(&mut layer, &context.join(source), destination.trim_matches('/'))?;
    }
    Ok(layer.into_inner()?)
}

fn append_folder(layer: &mut tar::Builder<Vec<u8>>, folder: &Path, name: &str) -> Result<()> {
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("reading {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let file_name = entry.file_name().into_string().ok().context("a file name that is not UTF-8")?;
        let name = if name.is_empty() { file_name } else { format!("{name}/{file_name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            layer.append_data(&mut header, format!("{name}/"), std::io::empty())?;
            append_folder(layer, &path, &name)?;
        } else if kind.is_file() {
            let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            append(layer, &name, &bytes, if executable { 0o755 } else { 0o644 })?;
        } else {
            bail!("{} is neither a plain file nor a folder", path.display());
        }
    }
    Ok(())
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header(bytes.len() as u64, mode);
    archive.append_data(&mut header, name, bytes).with_context(|| format!("adding {name}"))
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The first 8 hex digits of the SHA-256: enough to tell checkouts apart.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes)[..4])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn entries(bytes: impl Read) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                let name = entry.path().unwrap().to_string_lossy().into_owned();
                (name, (entry.header().mode().unwrap(), entry.header().mtime().unwrap(), contents))
            })
            .collect()
    }

    #[test]
    fn equal_folders_give_equal_archives_whenever_they_were_written() {
        let write = |order: [&str; 2]| {
            let context = tempfile::tempdir().unwrap();
            fs::create_dir(context.path().join("root")).unwrap();
            for name in order {
                fs::write(context.path().join("root").join(name), name).unwrap();
            }
            let file = fs::File::open(context.path().join("root/b")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(order[0].len() as u64)).unwrap();
            let recipe = Recipe::parse("FROM scratch\nCOPY root/ /").unwrap();
            let path = context.path().join("image.tar");
            let archive = write_archive("docker.io/swiftbalancer/x:1", &recipe, context.path(), &path).unwrap();
            (archive.digest, fs::read(&path).unwrap())
        };
        assert_eq!(write(["a", "b"]), write(["b", "a"]));
    }

    #[test]
    fn every_blob_has_the_digest_it_is_stored_under_and_the_layer_keeps_the_executable_bit() {
        let context = tempfile::tempdir().unwrap();
        fs::create_dir_all(context.path().join("root/bin")).unwrap();
        fs::write(context.path().join("root/bin/program"), "program").unwrap();
        fs::set_permissions(context.path().join("root/bin/program"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(context.path().join("root/data"), "data").unwrap();
        let recipe = Recipe::parse(
            "FROM scratch\nCOPY root/ /opt/\nENV A=b,c\nUSER 65532:65532\nENTRYPOINT [\"/opt/bin/program\"]",
        )
        .unwrap();
        let path = context.path().join("image.tar");
        let archive = write_archive("docker.io/swiftbalancer/x:1", &recipe, context.path(), &path).unwrap();

        let outer = entries(fs::File::open(&path).unwrap());
        for (name, (_, _, bytes)) in outer.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            assert_eq!(*name, format!("blobs/sha256/{}", hexadecimal(&Sha256::digest(bytes))));
        }
        let read =
            |digest: &Value| &outer[&format!("blobs/{}", digest.as_str().expect("a digest").replace(':', "/"))].2;
        let index: Value = serde_json::from_slice(&outer["index.json"].2).unwrap();
        assert_eq!(index["manifests"][0]["digest"], archive.digest);
        let manifest: Value = serde_json::from_slice(read(&index["manifests"][0]["digest"])).unwrap();
        let config: Value = serde_json::from_slice(read(&manifest["config"]["digest"])).unwrap();
        let expected = json!({ "User": "65532:65532", "Env": ["A=b,c"], "Entrypoint": ["/opt/bin/program"] });
        assert_eq!(config["config"], expected);
        let layer = entries(&read(&manifest["layers"][0]["digest"])[..]);
        let modes: Vec<_> = layer.iter().map(|(name, (mode, mtime, _))| (name.as_str(), *mode, *mtime)).collect();
        assert_eq!(modes, [("opt/bin/", 0o755, 0), ("opt/bin/program", 0o755, 0), ("opt/data", 0o644, 0)]);
    }
}
