//! Between text and tokens: the tokenizer, text that grows token by token, and stop strings. Knows nothing of requests
//! or of ranks.

mod growing;
mod offsets;
mod stop;
mod tokenizer;

pub use growing::{GrowingText, Piece};
pub use offsets::{offsets_in_given_text, offsets_in_own_text};
pub use stop::StopStrings;
pub use tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
