//! What tests of the HTTP side share.

use std::path::PathBuf;

use super::text::Tokenizer;

/// The small model that the repository ships.
pub fn model_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe")
}

/// Its tokenizer.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::load(&model_directory()).unwrap()
}
