//! Which folders of nodes a deployment may mount. Pure.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use thiserror::Error;

/// A folder of nodes: absolute, without `.` and empty parts, and without `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath(Vec<String>);

/// Why a text is no folder of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostPathError {
    /// It depends on where it is read.
    #[error("a folder of nodes is an absolute path: it must start with '/'")]
    Relative,
    /// It could lead anywhere.
    #[error("a folder of nodes must not contain '..'")]
    Parent,
}

impl FromStr for HostPath {
    type Err = HostPathError;

    fn from_str(text: &str) -> Result<Self, HostPathError> {
        if !text.starts_with('/') {
            return Err(HostPathError::Relative);
        }
        let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
        let parts = parts.map(|part| if part == ".." { Err(HostPathError::Parent) } else { Ok(part.to_owned()) });
        Ok(Self(parts.collect::<Result<_, _>>()?))
    }
}

impl Display for HostPath {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}", self.0.join("/"))
    }
}

/// Folders below which, and themselves, a deployment may mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHostPaths(Vec<HostPath>);

impl AllowedHostPaths {
    /// These folders.
    #[must_use]
    pub const fn new(folders: Vec<HostPath>) -> Self {
        Self(folders)
    }

    /// The folders.
    #[must_use]
    pub fn folders(&self) -> &[HostPath] {
        &self.0
    }

    /// Whether a path is one of the folders or below one, by whole parts of it.
    #[must_use]
    pub fn allows(&self, path: &str) -> bool {
        let Ok(HostPath(path)) = path.parse() else { return false };
        self.0.iter().any(|HostPath(folder)| path.starts_with(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(folders: &[&str]) -> AllowedHostPaths {
        AllowedHostPaths::new(folders.iter().map(|folder| folder.parse().unwrap()).collect())
    }

    #[test]
    fn a_folder_and_what_is_below_it_is_allowed_however_it_is_written() {
        let models = allowed(&["/srv/models/", "//mnt/./data"]);
        for path in [
            "/srv/models",
            "/srv/models/",
            "/srv//models/qwen3/",
            "/srv/./models/.hidden/..a",
            "///srv/models/a b",
            "/mnt/data/x",
            "/mnt/data",
        ] {
            assert!(models.allows(path), "{path}");
        }
    }

    #[test]
    fn what_only_looks_as_if_it_were_below_is_refused() {
        let models = allowed(&["/srv/models", "/data"]);
        for path in [
            "/",
            "//",
            "",
            ".",
            "srv/models",
            "./srv/models",
            "/srv",
            "/srv/models2",
            "/srv/model",
            "/srv/models/..",
            "/srv/models/../models/x",
            "/srv/models/../../etc",
            "/database",
            "/data..",
            "/Data/x",
            "/var/lib/kubelet",
            "/etc/srv/models",
            " /srv/models",
            "/srv/models /x",
            "/srv\\models",
            "/%73rv/models",
        ] {
            assert!(!models.allows(path), "{path}");
        }
    }

    #[test]
    fn without_folders_nothing_is_allowed_and_the_root_allows_all() {
        for path in ["/", "/srv", ""] {
            assert!(!AllowedHostPaths::default().allows(path), "{path}");
        }
        assert!(allowed(&["/"]).allows("/var/lib/kubelet"));
        assert!(!allowed(&["/"]).allows("/var/../etc"));
    }

    #[test]
    fn a_folder_that_leads_elsewhere_cannot_be_allowed() {
        assert_eq!("models".parse::<HostPath>(), Err(HostPathError::Relative));
        assert_eq!("".parse::<HostPath>(), Err(HostPathError::Relative));
        assert_eq!("/srv/../etc".parse::<HostPath>(), Err(HostPathError::Parent));
        assert_eq!("/srv//./models/".parse::<HostPath>().unwrap().to_string(), "/srv/models");
        assert_eq!("/".parse::<HostPath>().unwrap().to_string(), "/");
    }
}
