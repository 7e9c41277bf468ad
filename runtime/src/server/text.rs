//! Between text and tokens: the tokenizer, text that grows token by token, and stop strings. Knows nothing of requests
//! or of ranks.

mod growing;
mod stop;
mod tokenizer;

pub use growing::{GrowingText, Piece, PieceToken, prompt_offsets};
pub use stop::StopStrings;
pub use tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
