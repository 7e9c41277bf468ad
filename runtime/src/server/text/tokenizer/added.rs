//! Added and special tokens, gathered from the four files in the order that transformers gathers them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::class::Class;
use super::{TokenizerError, TokenizerFiles};

/// Names that every tokenizer may give a token, in transformers' order.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const CONFIG: &str = "tokenizer_config.json";

/// A token as a file gives it: its text alone, or with how it matches.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    Text(String),
    Token(AddedToken),
}

impl Given {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Token(token) => &token.content,
        }
    }
}

/// Named special tokens, and those without a name.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    named: Vec<(String, Given)>,
    others: Vec<Given>,
}

impl SpecialTokens {
    /// Names and texts, as templates see them.
    pub fn named(&self) -> Vec<(String, String)> {
        self.named.iter().map(|(name, token)| (name.clone(), token.text().to_owned())).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Given> {
        self.named.iter().map(|(_, token)| token).chain(&self.others)
    }
}

/// Adds to a tokenizer what the files say beside its vocabulary.
pub(super) fn add_tokens(
    tokenizer: &mut tokenizers::Tokenizer,
    files: &TokenizerFiles,
    class: Class,
) -> Result<SpecialTokens, TokenizerError> {
    let (special, by_index) = gather(files, class)?;
    let present = tokenizer.get_added_tokens_decoder();
    let mut known: HashSet<&str> = present.values().map(|token| token.content.as_str()).collect();
    let mut tokens: Vec<Given> = by_index.into_values().map(Given::Token).collect();
    let listed = tokens.clone();
    known.extend(listed.iter().map(Given::text));
    for token in special.all() {
        if !known.contains(token.text()) && !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }
    let named: HashSet<&str> = special.named.iter().map(|(_, token)| token.text()).collect();
    let tokens = tokens.into_iter().map(|token| match token {
        Given::Text(text) => AddedToken::from(text, true),
        Given::Token(token) => {
            let is_special = token.special || named.contains(token.content.as_str());
            token.special(is_special)
        }
    });
    let add = |tokenizer: &mut tokenizers::Tokenizer, tokens: Vec<AddedToken>| {
        tokenizer.add_tokens(tokens).map_err(|error| wrong("tokenizer.json", &error.to_string()))
    };
    add(tokenizer, tokens.collect())?;
    if class == Class::Qwen2 {
        let mut seen = HashSet::new();
        let again = special.all().filter(|token| seen.insert(token.text().to_owned()));
        add(tokenizer, again.map(|token| AddedToken::from(token.text(), true)).collect())?;
    }
    Ok(special)
}

/// The special tokens, and all added tokens by their index.
fn gather(files: &TokenizerFiles, class: Class) -> Result<(SpecialTokens, BTreeMap<u64, AddedToken>), TokenizerError> {
    let mut settings = files.config.clone();
    if says_nothing(settings.get("extra_special_tokens"))
        && let Some(old) = settings.remove("additional_special_tokens")
    {
        settings.insert("extra_special_tokens".to_owned(), old);
    }
    let mut explicit = take_named(&mut settings, Value::is_string)?;
    take_extra_named(&mut settings, &mut explicit)?;
    let by_index = match settings.remove("added_tokens_decoder") {
        Some(Value::Object(tokens)) => tokens
            .into_iter()
            .map(|(index, token)| match (index.parse(), token_of(&token)) {
                (Ok(index), Some(Given::Token(token))) => Ok((index, token)),
                _ => Err(wrong(CONFIG, &format!("added_tokens_decoder has no token at {index:?}"))),
            })
            .collect::<Result<BTreeMap<_, _>, _>>()?,
        Some(_) => return Err(wrong(CONFIG, "added_tokens_decoder is no object")),
        None => {
            merge_special_tokens_map(files, &mut settings);
            take_extra_named(&mut settings, &mut explicit)?;
            tokens_of_old_files(files, &settings)?
        }
    };
    let by_text: HashMap<&str, &AddedToken> = by_index.values().map(|token| (token.content.as_str(), token)).collect();
    let mut named = Vec::new();
    for name in NAMES {
        let default = || class.default_tokens().iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        let token = match settings.get(name) {
            None => default().map(|text| Given::Text(text.to_owned())),
            Some(Value::Null) => None,
            Some(value) => {
                let token = token_of(value).ok_or_else(|| wrong(CONFIG, &format!("{name} is no token")))?;
                Some(by_text.get(token.text()).map_or(token, |&token| Given::Token(token.clone())))
            }
        };
        named.extend(token.map(|token| (name.to_owned(), token)));
    }
    let mut further = take_named(&mut settings, |value| value.is_string() || value.is_object())?;
    for (name, token) in explicit {
        match further.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = token,
            None => further.push((name, token)),
        }
    }
    named.extend(further);
    let others = others_of(&settings)?;
    Ok((SpecialTokens { named, others }, by_index))
}

/// Takes the tokens with names of the model's own, such as `image_token`.
fn take_named(
    settings: &mut Map<String, Value>,
    is_taken: impl Fn(&Value) -> bool,
) -> Result<Vec<(String, Given)>, TokenizerError> {
    let is_name = |name: &str| name.ends_with("_token") && !NAMES.contains(&name);
    let names: Vec<String> = settings
        .iter()
        .filter(|(name, value)| is_name(name) && is_taken(value))
        .map(|(name, _)| name.clone())
        .collect();
    names
        .into_iter()
        .map(|name| {
            let value = settings.remove(&name).unwrap_or_default();
            let token = token_of(&value).ok_or_else(|| wrong(CONFIG, &format!("{name} is no token")))?;
            Ok((name, token))
        })
        .collect()
}

/// Takes `extra_special_tokens` where it gives names.
fn take_extra_named(settings: &mut Map<String, Value>, named: &mut Vec<(String, Given)>) -> Result<(), TokenizerError> {
    if !settings.get("extra_special_tokens").is_some_and(Value::is_object) {
        return Ok(());
    }
    let Some(Value::Object(tokens)) = settings.remove("extra_special_tokens") else { return Ok(()) };
    for (name, value) in tokens {
        let token = token_of(&value).ok_or_else(|| wrong(CONFIG, &format!("{name} is no token")))?;
        match named.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = token,
            None => named.push((name, token)),
        }
    }
    Ok(())
}

/// Without `added_tokens_decoder`, `special_tokens_map.json` overrides `tokenizer_config.json`.
fn merge_special_tokens_map(files: &TokenizerFiles, settings: &mut Map<String, Value>) {
    for (name, value) in files.special_tokens_map.iter().flatten() {
        let value = match (name.as_str(), value) {
            ("extra_special_tokens", Value::Array(tokens)) => {
                let mut all = settings.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
                for token in tokens.iter().map(as_special) {
                    if !all.contains(&token) {
                        all.push(token);
                    }
                }
                Value::Array(all)
            }
            ("extra_special_tokens", other) => other.clone(),
            (_, value) => as_special(value),
        };
        settings.insert(name.clone(), value);
    }
}

fn as_special(token: &Value) -> Value {
    let mut token = token.clone();
    if let Value::Object(members) = &mut token {
        members.insert("special".to_owned(), json!(true));
    }
    token
}

/// Without `added_tokens_decoder`, tokens are those of `added_tokens.json` and of `tokenizer.json`; the latter count.
fn tokens_of_old_files(
    files: &TokenizerFiles,
    settings: &Map<String, Value>,
) -> Result<BTreeMap<u64, AddedToken>, TokenizerError> {
    let mut tokens = BTreeMap::new();
    if let Some(added) = &files.added_tokens {
        let named = NAMES.iter().filter_map(|name| token_of(settings.get(*name)?));
        let extra = settings.get("extra_special_tokens").and_then(Value::as_array);
        let special: HashSet<String> = named
            .chain(extra.into_iter().flatten().filter_map(token_of))
            .map(|token| token.text().to_owned())
            .collect();
        for (text, index) in added {
            let index = index.as_u64().ok_or_else(|| wrong("added_tokens.json", &format!("{text:?} has no index")))?;
            tokens.insert(index, AddedToken::from(text.as_str(), special.contains(text)));
        }
    }
    let json = files.tokenizer_json()?;
    for token in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        match (token["id"].as_u64(), token_of(token)) {
            (Some(index), Some(Given::Token(token))) => drop(tokens.insert(index, token)),
            _ => return Err(wrong("tokenizer.json", "added_tokens has an entry that is no token")),
        }
    }
    Ok(tokens)
}

/// Special tokens without a name.
fn others_of(settings: &Map<String, Value>) -> Result<Vec<Given>, TokenizerError> {
    let extra = settings.get("extra_special_tokens").or_else(|| settings.get("additional_special_tokens"));
    match extra {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tokens)) => tokens
            .iter()
            .map(|token| token_of(token).ok_or_else(|| wrong(CONFIG, "a special token is neither text nor token")))
            .collect(),
        Some(_) => Err(wrong(CONFIG, "extra_special_tokens is no list of tokens")),
    }
}

/// A string, or an object with `content` and how it matches.
fn token_of(value: &Value) -> Option<Given> {
    if let Some(text) = value.as_str() {
        return Some(Given::Text(text.to_owned()));
    }
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    let token = AddedToken::from(value.get("content")?.as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(Given::Token(token))
}

fn says_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(tokens)) => tokens.is_empty(),
        Some(Value::Object(tokens)) => tokens.is_empty(),
        Some(_) => false,
    }
}

fn wrong(file: &'static str, reason: &str) -> TokenizerError {
    TokenizerError::Wrong { file, reason: reason.to_owned() }
}
