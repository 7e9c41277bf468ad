//! The bytes that each token stands for, as the tokenizer's decoder says. Only decoders that give every token bytes of
//! its own can be used: an answer is shown token by token.

use serde_json::Value;

/// How tokens are spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    form: Form,
    /// What is left out where a text begins.
    leading: Leading,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Each character stands for a byte, as GPT-2 writes them.
    ByteLevel,
    /// Text, in which some strings stand for others; a token like `<0x0A>` may be a byte.
    Text { replaced: Vec<(String, String)>, bytes: bool },
}

/// What a decoder leaves out where a text begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leading {
    Nothing,
    /// At most so many spaces.
    Spaces(usize),
    /// The spaces of the first token.
    AllOfToken,
}

impl Spelling {
    /// What a decoder, as `tokenizer.json` has it, says.
    ///
    /// # Errors
    /// The name of what cannot be done.
    pub fn of(decoder: &Value) -> Result<Self, String> {
        let parts = match kind(decoder) {
            "Sequence" => decoder["decoders"].as_array().map_or(&[][..], Vec::as_slice),
            _ => std::slice::from_ref(decoder),
        };
        let (mut replaced, mut bytes, mut fused) = (Vec::new(), false, false);
        let (mut byte_level, mut leading) = (false, Leading::Nothing);
        for part in parts {
            let is_first = replaced.is_empty() && !bytes && !fused && !byte_level;
            match kind(part) {
                "ByteLevel" if is_first => byte_level = true,
                "Fuse" => fused = true,
                "Replace" if !fused && !bytes && !byte_level => match (&part["pattern"]["String"], &part["content"]) {
                    (Value::String(from), Value::String(to)) if !from.is_empty() => {
                        replaced.push((from.clone(), to.clone()));
                    }
                    _ => return Err("Replace with a regular expression".to_owned()),
                },
                "ByteFallback" if !bytes && !byte_level && !fused => bytes = true,
                "Metaspace" if is_first && parts.len() == 1 => {
                    let Some(space) = part["replacement"].as_str() else { return Err("Metaspace".to_owned()) };
                    replaced.push((space.to_owned(), " ".to_owned()));
                    let strips = part["prepend_scheme"].as_str() != Some("never");
                    leading = if strips { Leading::AllOfToken } else { Leading::Nothing };
                }
                "Strip" if fused && part["content"] == " " && part["stop"] == 0 && leading == Leading::Nothing => {
                    leading = Leading::Spaces(part["start"].as_u64().unwrap_or(0) as usize);
                }
                other => return Err(format!("{other}{}", if parts.len() > 1 { " at its place" } else { "" })),
            }
        }
        if parts.is_empty() {
            return Err("no decoder".to_owned());
        }
        let form = if byte_level { Form::ByteLevel } else { Form::Text { replaced, bytes } };
        Ok(Self { form, leading })
    }

    /// The bytes of a token of the vocabulary, or of an added one, which a byte-level vocabulary has as it is written.
    pub fn bytes(&self, token: &str, added: bool, alphabet: &[Option<u8>]) -> Vec<u8> {
        match &self.form {
            Form::ByteLevel if added => token.as_bytes().to_vec(),
            Form::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(|char| *alphabet.get(char as usize)?).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Form::Text { replaced, bytes } => {
                let text = replaced.iter().fold(token.to_owned(), |text, (from, to)| text.replace(from, to));
                match byte_of(&text).filter(|_| *bytes) {
                    Some(byte) => vec![byte],
                    None => text.into_bytes(),
                }
            }
        }
    }

    /// What is left of the bytes of the token that a text begins with.
    pub fn at_beginning<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let spaces = bytes.iter().take_while(|&&byte| byte == b' ').count();
        match self.leading {
            Leading::Nothing => bytes,
            Leading::Spaces(at_most) => &bytes[spaces.min(at_most)..],
            Leading::AllOfToken => &bytes[spaces..],
        }
    }
}

fn kind(decoder: &Value) -> &str {
    decoder["type"].as_str().unwrap_or("no decoder")
}

/// The byte that a token like `<0x0A>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte that each character stands for in a byte-level vocabulary: printable Latin-1 characters stand for
/// themselves, and the other bytes, in order, are written as the characters from U+0100 on (GPT-2, `bytes_to_unicode`).
pub(super) fn byte_of_char() -> Vec<Option<u8>> {
    let mut byte_of = vec![None; 0x144];
    let mut others = 0x100..;
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let char = if printable { usize::from(byte) } else { others.next().expect("endless") };
        byte_of[char] = Some(byte);
    }
    byte_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_byte_alphabet_is_the_one_of_the_tokenizers_crate() {
        let ours: std::collections::BTreeSet<char> =
            (0u32..0x144).filter(|&char| byte_of_char()[char as usize].is_some()).filter_map(char::from_u32).collect();
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn tokens_are_spelled_as_the_decoder_says() {
        let alphabet = byte_of_char();
        for decoder in [json!({"type": "ByteLevel"}), json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})]
        {
            let spelling = Spelling::of(&decoder).unwrap();
            assert_eq!(spelling.bytes("Ġa", false, &alphabet), b" a");
            assert_eq!(spelling.bytes("Ċ", false, &alphabet), b"\n");
            assert_eq!(spelling.bytes("é", true, &alphabet), "é".as_bytes());
            assert_eq!(spelling.at_beginning(b" a"), b" a");
        }
        let llama = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let spelling = Spelling::of(&llama).unwrap();
        assert_eq!(spelling.bytes("▁▁a", false, &alphabet), b"  a");
        assert_eq!(spelling.bytes("<0xe2>", false, &alphabet), [0xe2]);
        assert_eq!(spelling.bytes("<0xe2 >", false, &alphabet), b"<0xe2 >");
        assert_eq!(spelling.at_beginning(b"  a"), b" a");
        let metaspace =
            Spelling::of(&json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})).unwrap();
        assert_eq!(metaspace.at_beginning(&metaspace.bytes("▁▁a", false, &alphabet)), b"a");
    }

    #[test]
    fn what_cannot_be_shown_token_by_token_is_named() {
        let refused = |decoder: Value| Spelling::of(&decoder).unwrap_err();
        assert_eq!(refused(Value::Null), "no decoder");
        assert_eq!(refused(json!({"type": "WordPiece", "prefix": "##", "cleanup": true})), "WordPiece");
        assert_eq!(refused(json!({"type": "CTC"})), "CTC");
        let fused = json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]});
        assert_eq!(refused(fused), "ByteFallback at its place");
        let regex = json!({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""});
        assert_eq!(refused(regex), "Replace with a regular expression");
        assert_eq!(refused(json!({"type": "Sequence", "decoders": []})), "no decoder");
    }
}
