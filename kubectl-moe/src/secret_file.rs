//! Files with a token or a key: one a line, and comments.

use std::io;
use std::path::Path;

/// The first line of a file that is not empty and no comment.
pub(crate) fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    line.map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("it is empty"))
}
