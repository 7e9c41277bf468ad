//! What kubectl runs to complete `kubectl moe`: with the words so far, of which the last is not whole.

use std::io::{Write as _, stdout};
use std::path::Path;

use kubectl_moe::complete_for_kubectl;

fn main() {
    let words = std::env::args_os().skip(1).collect();
    let folder = std::env::current_dir().unwrap_or_else(|_| Path::new(".").to_owned());
    // A shell that no longer listens needs nothing.
    let _ = stdout().write_all(complete_for_kubectl(words, &folder).as_bytes());
}
