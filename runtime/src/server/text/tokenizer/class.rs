//! Which tokenizer class of transformers a checkpoint asks for, and what that makes of `tokenizer.json`. Some classes
//! take the whole file; others take its vocabulary, merges and post-processor and bring the rest themselves.

use serde_json::{Map, Value, json};

use super::{TokenizerError, TokenizerFiles};

/// How Qwen2's class cuts text before merging, whatever `tokenizer.json` says.
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Takes `tokenizer.json` as it is.
    Backend,
    /// GPT-2's parts around the file's vocabulary.
    Gpt2,
    /// Llama's parts (words begin with `▁`, unknown characters are bytes) around the file's vocabulary.
    Llama,
    /// Qwen2's parts around the file's vocabulary.
    Qwen2,
}

impl Class {
    /// As `AutoTokenizer` chooses.
    pub fn of(files: &TokenizerFiles) -> Result<Self, TokenizerError> {
        let has_code = match files.config.get("auto_map") {
            None | Some(Value::Null) => false,
            Some(Value::Object(map)) => map.get("AutoTokenizer").is_some_and(|class| !class.is_null()),
            Some(_) => true,
        };
        let own = files.config.get("tokenizer_class").and_then(Value::as_str);
        let named = own.or(files.class_of_model.as_deref()).or(files.registered_class);
        let Some(name) = named else { return Ok(Self::Backend) };
        match name.strip_suffix("Fast").unwrap_or(name) {
            "Qwen2Tokenizer" => Ok(Self::Qwen2),
            "TokenizersBackend" | "PreTrainedTokenizer" => Ok(Self::Backend),
            "LlamaTokenizer" if !has_code && names_byte_level(&files.tokenizer) => Ok(Self::Backend),
            "LlamaTokenizer" => Ok(Self::Llama),
            "GPT2Tokenizer" => Ok(Self::Gpt2),
            _ => Err(TokenizerError::Class { name: name.to_owned() }),
        }
    }

    /// `tokenizer.json` as the class would have written it.
    pub fn parts(self, files: &TokenizerFiles) -> Result<Vec<u8>, TokenizerError> {
        if self == Self::Backend {
            return Ok(files.tokenizer.clone());
        }
        let mut tokenizer = files.tokenizer_json()?;
        let model = tokenizer.get_mut("model").and_then(Value::as_object_mut);
        let Some(model) = model.filter(|model| model.get("type").is_some_and(|kind| kind == "BPE")) else {
            let reason = format!("its model is not BPE, but the class {self:?} of transformers makes one of it");
            return Err(TokenizerError::Wrong { file: "tokenizer.json", reason });
        };
        let (vocabulary, merges) = (model.remove("vocab"), model.remove("merges"));
        let own = self.own_parts(files);
        for (key, value) in own {
            tokenizer.insert(key, value);
        }
        tokenizer["model"]["vocab"] = vocabulary.unwrap_or_default();
        tokenizer["model"]["merges"] = merges.unwrap_or_default();
        tokenizer.insert("added_tokens".to_owned(), json!([]));
        serde_json::to_vec(&tokenizer)
            .map_err(|error| TokenizerError::Json { file: "tokenizer.json", reason: error.to_string().into() })
    }

    /// What the class brings itself.
    fn own_parts(self, files: &TokenizerFiles) -> Map<String, Value> {
        let prefix_space = files.config.get("add_prefix_space").and_then(Value::as_bool);
        let byte_level = |add_prefix_space: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex});
        let parts = match self {
            Self::Backend => json!({}),
            Self::Gpt2 => json!({
                "normalizer": null,
                "pre_tokenizer": byte_level(prefix_space.unwrap_or(false), true),
                "decoder": byte_level(true, true),
                "model": {"type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": ""},
            }),
            Self::Qwen2 => json!({
                "normalizer": {"type": "NFC"},
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": false},
                    byte_level(prefix_space.unwrap_or(false), false),
                ]},
                "decoder": byte_level(true, true),
                "model": {"type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": ""},
            }),
            Self::Llama => {
                let prefix_space = prefix_space.unwrap_or(true);
                let legacy = files.config.get("legacy").and_then(Value::as_bool).unwrap_or(false);
                let scheme = match (prefix_space, legacy) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                let mut decoders = vec![
                    json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                    json!({"type": "ByteFallback"}),
                    json!({"type": "Fuse"}),
                ];
                if prefix_space {
                    decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                }
                json!({
                    "normalizer": null,
                    "pre_tokenizer":
                        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false},
                    "decoder": {"type": "Sequence", "decoders": decoders},
                    "model": {"type": "BPE", "fuse_unk": true, "byte_fallback": true},
                })
            }
        };
        match parts {
            Value::Object(parts) => parts,
            _ => Map::new(),
        }
    }

    /// Special tokens that the class has where `tokenizer_config.json` does not name them.
    pub const fn default_tokens(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        match self {
            Self::Backend => &[],
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Self::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            Self::Qwen2 => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
        }
    }
}

/// As transformers looks for it: anywhere in the file.
fn names_byte_level(tokenizer: &[u8]) -> bool {
    const WORD: &[u8] = b"\"ByteLevel\"";
    tokenizer.windows(WORD.len()).any(|window| window == WORD)
}
