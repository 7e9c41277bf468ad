//! Keeps a recorded map in a file that a reader never sees half written.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plan::wire::RecordedMap;
use tempfile::NamedTempFile;
use thiserror::Error;

/// A recorded map was not written; the file that was there is unchanged. Trying again may help.
#[derive(Debug, Error)]
#[error("cannot write the recorded map to {}", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// Replaces the file at `path` by the map as JSON, on disk when it returns.
///
/// # Errors
/// If the file system refuses.
pub fn record(path: &Path, map: &RecordedMap) -> Result<(), RecordError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    replace(path, folder, map).map_err(|source| RecordError { path: path.to_owned(), source })
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
mod tests {
    use plan::map::{ExpertMap, MapShape};
    use plan::wire::{MapDocument, ModelIdentity, Provenance};

    use super::*;

    fn recorded(epoch: u64) -> RecordedMap {
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
    fn a_failure_names_the_file_and_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("map.json");
        let error = record(&path, &recorded(1)).unwrap_err();
        assert!(error.to_string().contains("missing/map.json"), "{error}");
    }
}
