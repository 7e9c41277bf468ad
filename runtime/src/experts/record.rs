//! Keeps a recorded map in a file that a reader never sees half written.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use plan::wire::RecordedMap;
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::quoted::Quoted;

/// A recorded map was not written; the file that was there is unchanged. Trying again may help.
#[derive(Debug, Error)]
#[error("cannot write the recorded map to {path}: {reason}")]
pub struct RecordError {
    path: Quoted,
    reason: Quoted<96>,
}

/// Why no map can be recorded at a path.
#[derive(Debug, Error)]
pub enum RecordPathError {
    /// Its folder is not there.
    #[error("there is no folder {0}; create it")]
    NoFolder(Quoted),
    /// It names no file.
    #[error("it is {0}; name a file, which need not be there yet")]
    NoFile(&'static str),
    /// The system does not say what is there.
    #[error("{0}; name another file")]
    Unknown(Quoted<96>),
    /// Its folder cannot be written to.
    #[error("no file can be written in {folder}: {reason}")]
    Unwritable {
        /// The folder.
        folder: Quoted,
        /// The reason, shortened.
        reason: Quoted<96>,
    },
}

/// What the system says, without the name of a temporary file, which is another one each time.
fn words(error: &io::Error) -> Quoted<96> {
    let said = error.to_string();
    Quoted::from(said.split_once(" at path ").map_or(&*said, |(reason, _)| reason))
}

/// Checks that maps can be recorded at a path, as [`record`] will do it. A link is followed once, here; the file that it leads
/// to is the one that is replaced.
///
/// # Errors
/// If they cannot.
pub fn check(path: &Path) -> Result<PathBuf, RecordPathError> {
    let path = match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => {
            path.canonicalize().map_err(|_| RecordPathError::NoFile("a link that leads nowhere"))?
        }
        _ => path.to_owned(),
    };
    match path.metadata() {
        Ok(found) if found.is_dir() => return Err(RecordPathError::NoFile("a folder")),
        Ok(found) if !found.is_file() => return Err(RecordPathError::NoFile("no regular file")),
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(RecordPathError::Unknown(words(&error)));
        }
        _ if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            return Err(RecordPathError::NoFile("no name of a file"));
        }
        _ => {}
    }
    let folder = folder_of(&path);
    if !folder.is_dir() {
        return Err(RecordPathError::NoFolder(Quoted::path(folder)));
    }
    let unwritable =
        |error: io::Error| RecordPathError::Unwritable { folder: Quoted::path(folder), reason: words(&error) };
    NamedTempFile::new_in(folder).map_err(unwritable)?;
    Ok(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces the file at `path` by the map as JSON, on disk when it returns.
///
/// # Errors
/// If the file system refuses.
pub fn record(path: &Path, map: &RecordedMap) -> Result<(), RecordError> {
    let failed = |error: io::Error| RecordError { path: Quoted::path(path), reason: words(&error) };
    replace(path, folder_of(path), map).map_err(failed)
}

fn replace(path: &Path, folder: &Path, map: &RecordedMap) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, map)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name is on disk when the folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use plan::map::{ExpertMap, MapShape};
    use plan::wire::{MapDocument, ModelIdentity, Provenance};

    use super::*;

    pub fn recorded(epoch: u64) -> RecordedMap {
        let model = ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 1, experts: 4 };
        let map = ExpertMap::contiguous(MapShape::with_redundancy(1, 4, 2, 0).unwrap()).unwrap();
        let provenance = Provenance { window: 1, window_steps: 400, window_pairs: 9, epoch, ratio: 0.97 };
        RecordedMap { map: MapDocument::new(model, &map), provenance }
    }

    #[test]
    fn a_map_that_is_written_can_be_read_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.json");
        for epoch in [3, 4] {
            record(&path, &recorded(epoch)).unwrap();
            let read: RecordedMap = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(read, recorded(epoch));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_path_that_no_map_can_be_written_to_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let (file, link) = (place("map.json"), place("link"));
        assert_eq!(check(&file).unwrap(), file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        std::fs::write(&file, "{}").unwrap();
        std::os::unix::fs::symlink("map.json", &link).unwrap();
        assert_eq!(check(&link).unwrap(), file.canonicalize().unwrap());
        std::os::unix::fs::symlink("nowhere", place("dangling")).unwrap();
        for (path, reason) in [
            (place("dangling"), "it is a link that leads nowhere; "),
            (folder.path().to_owned(), "it is a folder; "),
            (PathBuf::from("/dev/null"), "it is no regular file; "),
            (place("new/"), "it is no name of a file; "),
            (PathBuf::new(), "it is no name of a file; "),
            (place("missing/map.json"), "there is no folder "),
            (place("map.json/map.json"), "there is no folder "),
            (
                PathBuf::from("/proc/map.json"),
                "no file can be written in /proc: No such file or directory (os error 2)",
            ),
            (place(&"m".repeat(300)), "File name too long (os error 36); "),
            (place(&("m/".repeat(1500) + "map.json")), "there is no folder "),
        ] {
            let error = check(&path).unwrap_err().to_string();
            assert!(error.starts_with(reason) && error.chars().count() < 200, "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("map.json");
        let error = record(&path, &recorded(1)).unwrap_err();
        assert!(error.to_string().contains("missing/map.json"), "{error}");
    }
}
