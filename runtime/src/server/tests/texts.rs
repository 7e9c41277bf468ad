//! Prompts are those of transformers: rows that tests/models/scripts/texts.py wrote down, through the real loader.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::server::chat::{ChatTemplate, given_of_json};
use crate::server::fixture::{model, model_directory};
use crate::server::jinja::Given;
use crate::server::text::TokenizerError;
use crate::server::{ModelLimits, ServedModel};

fn rows(file: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/models/texts").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn load(directory: &Path) -> Result<ServedModel, String> {
    let limits = ModelLimits { max_model_len: 1024, vocab_size: 1792, has_texts: true };
    ServedModel::load(directory, "tiny".to_owned(), &limits, 0).map_err(|error| error.to_string())
}

/// Writes a row's folder: a base with members put and dropped.
fn write(row: &Value, bases: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut documents = Map::new();
    documents.insert("config.json".to_owned(), read(&model_directory().join("config.json")));
    match row["base"].as_str() {
        None => {
            for name in ["tokenizer.json", "tokenizer_config.json"] {
                documents.insert(name.to_owned(), read(&model_directory().join(name)));
            }
        }
        Some(base) => {
            documents.insert("tokenizer.json".to_owned(), bases[base].clone());
            let class = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
            documents.insert("tokenizer_config.json".to_owned(), class);
        }
    }
    for (name, change) in row["files"].as_object().into_iter().flatten() {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(text) = change.as_str() {
            documents.remove(name);
            std::fs::write(path, text).unwrap();
            continue;
        }
        let document = documents.entry(name.as_str()).or_insert_with(|| json!({}));
        for (path, value) in change["put"].as_object().into_iter().flatten() {
            let (parents, last) = path.rsplit_once('.').map_or((None, path.as_str()), |(all, last)| (Some(all), last));
            let place =
                parents.into_iter().flat_map(|all| all.split('.')).fold(&mut *document, |at, name| &mut at[name]);
            place[last] = value.clone();
        }
        for member in change["drop"].as_array().into_iter().flatten() {
            document.as_object_mut().unwrap().remove(member.as_str().unwrap());
        }
    }
    for (name, document) in documents {
        std::fs::write(directory.path().join(name), document.to_string()).unwrap();
    }
    directory
}

fn check_tokenizer(row: &Value, bases: &Value) -> Result<(), String> {
    let directory = write(row, bases);
    let loaded = load(directory.path());
    if let Some(refused) = row["refused"].as_str() {
        let message = loaded.err().ok_or("it is accepted")?;
        let is_short = message.chars().count() <= 300 && !message.contains('\n');
        return if message.contains(refused) && is_short { Ok(()) } else { Err(message) };
    }
    let model = loaded?;
    for text in row["texts"].as_array().unwrap() {
        for (whole, kind) in [(true, "whole"), (false, "part")] {
            let ids = model.tokenizer.encode(text["text"].as_str().unwrap(), whole).unwrap();
            if json!(ids) != text[kind] {
                return Err(format!("{} ({kind}) is {ids:?}, not {}", text["text"], text[kind]));
            }
        }
    }
    let named: Map<String, Value> =
        model.tokenizer.named_tokens().iter().map(|(name, text)| (name.clone(), json!(text))).collect();
    if Value::Object(named.clone()) != row["named"] {
        return Err(format!("named tokens are {named:?}, not {}", row["named"]));
    }
    if row["chat"].is_null() { Ok(()) } else { check_chat(&model, &row["chat"]) }
}

fn check_chat(model: &ServedModel, case: &Value) -> Result<(), String> {
    let arguments =
        serde_json::from_value::<Given>(case["arguments"].clone()).unwrap().into_members().unwrap_or_default();
    let template = model.chat.as_ref().map_err(ToString::to_string)?;
    let now = jiff::civil::date(2026, 3, 4).at(15, 6, 7, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    let rendered = template.render(given_of_json(&case["messages"]), arguments, &now, &|| false);
    if !case["fails"].is_null() {
        return match rendered {
            Ok(text) => Err(format!("gives {text:?}, but transformers fails: {}", case["fails"])),
            Err(_) => Ok(()),
        };
    }
    let text = rendered.map_err(|error| error.to_string())?;
    if text != case["text"] {
        return Err(format!("gives {text:?}, not {}", case["text"]));
    }
    let ids = model.tokenizer.encode(&text, false).unwrap();
    if json!(ids) == case["ids"] { Ok(()) } else { Err(format!("{text:?} is {ids:?}, not {}", case["ids"])) }
}

fn report(wrong: &[String], rows: usize, at_least: usize) {
    assert!(wrong.is_empty(), "{} of {rows} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= at_least, "only {rows} rows");
}

#[test]
fn tokens_are_those_of_transformers_for_every_tokenizer_that_is_accepted() {
    let (bases, rows) = (rows("bases.json"), rows("tokenizers.json"));
    let rows = rows.as_array().unwrap();
    let wrong = |row: &Value| check_tokenizer(row, &bases).err().map(|error| format!("{}: {error}", row["name"]));
    report(&rows.iter().filter_map(wrong).collect::<Vec<_>>(), rows.len(), 90);
}

/// A text of what is hard to cut: words, marks, white space, and whatever the row is about.
fn text_of_fragments(random: &mut StdRng, row: &Value) -> String {
    const FRAGMENTS: &[&str] = &[
        "a",
        "word",
        " word",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{3000}",
        "\u{a0}",
        "1",
        "23",
        ".",
        ",",
        "'s",
        "-",
        "<",
        ">",
        "|",
        "_",
        "A",
        "\u{e9}",
        "e\u{301}",
        "\u{301}",
        "\u{65e5}\u{672c}",
        "\u{3002}",
        "\u{ff0c}",
        "\u{304b}\u{3099}",
        "\u{1100}\u{1161}\u{11a8}",
        "\u{ac00}",
        "\u{1f980}",
        "\u{fb01}",
        "\u{2581}",
        "\u{120}",
        "\u{0}",
        "\u{df}",
        "\u{130}",
    ];
    let own: Vec<&str> =
        row["texts"].as_array().into_iter().flatten().filter_map(|text| text["text"].as_str()).collect();
    let fragment = |random: &mut StdRng| {
        let text = if random.random_bool(0.2) && !own.is_empty() { own[random.random_range(0..own.len())] } else { "" };
        if text.is_empty() { FRAGMENTS[random.random_range(0..FRAGMENTS.len())] } else { text }
    };
    (0..random.random_range(1..60)).map(|_| fragment(random)).collect::<Vec<_>>().concat()
}

#[test]
fn tokens_are_the_same_whatever_pieces_a_text_is_cut_into() {
    let mut random = StdRng::seed_from_u64(crate::protocol::tests::seed());
    let (bases, rows) = (rows("bases.json"), rows("tokenizers.json"));
    let mut cut = 0;
    for row in rows.as_array().unwrap().iter().filter(|row| row["refused"].is_null()) {
        let tokenizer = load(write(row, &bases).path()).unwrap().tokenizer;
        for _ in 0..12 {
            let text = text_of_fragments(&mut random, row);
            let whole = tokenizer.encode_in_pieces(&text, true, usize::MAX, usize::MAX).unwrap();
            for piece in [1, 2, 5, 17, 50] {
                cut += tokenizer.pieces(&text, piece).count() - 1;
                let tokens = tokenizer.encode_in_pieces(&text, true, usize::MAX, piece).unwrap();
                let pieces: Vec<&str> = tokenizer.pieces(&text, piece).collect();
                assert_eq!(tokens, whole, "{}: {text:?} as {pieces:?}", row["name"]);
            }
        }
    }
    println!("{cut} cuts");
    assert!(cut > 30_000, "only {cut} cuts");
}

#[test]
fn what_a_text_costs_that_no_context_holds_is_bounded_by_the_context() {
    const MOST: usize = 1024;
    let tokenizer = model().tokenizer;
    for part in
        ["many words ", "a", " ", "\n", "1", "\u{65e5}", "\u{1f980}", "<|im_start|>", "e\u{301} ", ".", "aB", "\u{0}"]
    {
        let text = part.repeat((4 << 20) / part.len());
        match tokenizer.encode_at_most(&text, true, MOST) {
            // No piece has as many tokens as that.
            Err(TokenizerError::TooMany { at_least }) => {
                assert!((MOST + 1..MOST + (16 << 10)).contains(&at_least), "{part:?}: {at_least}");
            }
            other => panic!("{part:?}: {other:?}"),
        }
    }
    let words = "many words ".repeat(1 << 16);
    assert!(tokenizer.pieces(&words, 16 << 10).all(|piece| piece.len() <= 16 << 10), "words are cut");
    let short = "many words ".repeat(MOST);
    assert!(tokenizer.encode_at_most(&short, true, MOST).unwrap().len() > MOST, "what is one piece is counted");
}

fn check_template(row: &Value, model: &mut ServedModel) -> Result<(), String> {
    let nowhere = tempfile::tempdir().unwrap();
    model.chat = ChatTemplate::load(nowhere.path(), Some(&row["template"]), model.tokenizer.named_tokens(), 1 << 20);
    if let Some(refused) = row["refused"].as_str() {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        let refusal = match &model.chat {
            Err(error) => error.to_string(),
            Ok(template) => {
                match template.render(given_of_json(&messages), Vec::new(), &jiff::Zoned::default(), &|| false) {
                    Err(error) => error.to_string(),
                    Ok(text) => return Err(format!("gives {text:.80?}")),
                }
            }
        };
        return if refusal.contains(refused) { Ok(()) } else { Err(refusal) };
    }
    for chat in row["chats"].as_array().unwrap() {
        match (&model.chat, &chat["fails"]) {
            (Err(_), Value::String(_)) => {}
            _ => check_chat(model, chat)?,
        }
    }
    Ok(())
}

#[test]
fn chats_are_those_of_transformers_for_every_template_that_is_accepted() {
    let (mut model, rows) = (model(), rows("templates.json"));
    let rows = rows.as_array().unwrap();
    let mut wrong = Vec::new();
    for row in rows {
        wrong.extend(check_template(row, &mut model).err().map(|error| format!("{}: {error}", row["name"])));
    }
    report(&wrong, rows.len(), 600);
}

/// FNV-1a over the tokens' bytes.
fn hashed(tokens: &[u32]) -> String {
    let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
    let value =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{value:016x}")
}

#[test]
fn every_character_is_cut_from_its_neighbours_as_transformers_cuts_it() {
    let (model, blocks) = (model(), rows("characters.json"));
    let mut wrong = Vec::new();
    for (block, expected) in blocks.as_object().unwrap() {
        let first = u32::from_str_radix(block, 16).unwrap();
        let text = |char: char| format!("a{char}b {char}{char} 1{char}'S{char}\n");
        let text: String = (first..first + 0x100).filter_map(char::from_u32).map(text).collect::<Vec<_>>().concat();
        if hashed(&model.tokenizer.encode(&text, true).unwrap()) != *expected {
            wrong.push(format!("characters from U+{block}"));
        }
    }
    report(&wrong, blocks.as_object().unwrap().len(), 500);
}

#[test]
fn what_a_checkpoint_says_of_sampling_is_held_to_the_rules_of_requests() {
    let bases = rows("bases.json");
    let loaded = |text: &str| load(write(&json!({"files": {"generation_config.json": text}}), &bases).path());
    let model = loaded("\u{feff}{\"top_k\": 20.0, \"temperature\": 0.5, \"eos_token_id\": [-1, 1789]}").unwrap();
    assert_eq!((model.defaults.top_k, model.defaults.temperature), (20, 0.5));
    assert_eq!(*model.end_tokens, [1789, 1791], "the last one is the tokenizer's own");
    let model = loaded("{\"eos_token_id\": [1792, 4294967295, 1789]}").unwrap();
    assert_eq!(*model.end_tokens, [1789, 1791], "the vocabulary has 1792");
    let model = loaded("{\"eos_token_id\": null}").unwrap();
    assert_eq!(*model.end_tokens, [1791], "config.json says so too");
    for (text, said) in [
        ("{\"top_p\": Infinity}", "top_p of generation_config.json must be"),
        ("{\"top_k\": 0.5}", "top_k of generation_config.json must be"),
        ("{\"eos_token_id\": \"x\"}", "eos_token_id of generation_config.json must be"),
        ("[]", "generation_config.json cannot be used: it is no JSON object"),
        ("{", "generation_config.json cannot be used: "),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    ] {
        let error = loaded(text).err().unwrap();
        assert!(error.contains(said) && error.chars().count() <= 300, "{text}: {error}");
    }
}

#[test]
fn more_white_space_than_an_expression_can_go_back_over_is_refused() {
    let tokenizer = model().tokenizer;
    let encode = |spaces: usize| tokenizer.encode(&format!("a{}b", " ".repeat(spaces)), true);
    let error = encode(600_000).unwrap_err().to_string();
    assert!(error.contains("600000 white space characters in a row"), "{error}");
    // All but the last are a word of their own.
    assert_eq!(encode(1_000).unwrap().last(), tokenizer.encode(" b", true).unwrap().last());
}

#[test]
fn texts_of_a_model_without_a_tokenizer_are_bytes_and_its_other_tokens_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model_directory().join("config.json"), folder.path().join("config.json")).unwrap();
    let load = |vocab_size: usize, has_texts: bool| {
        let limits = ModelLimits { max_model_len: 1024, vocab_size, has_texts };
        ServedModel::load(folder.path(), "drawn".to_owned(), &limits, 0)
    };
    let said = load(1792, true).err().unwrap().to_string();
    assert!(said.starts_with("tokenizer.json is missing"), "{said}");
    let said = load(255, false).err().unwrap().to_string();
    assert!(said.ends_with("needs a token for each of 256 bytes; the model has 255 tokens"), "{said}");
    let served = load(1792, false).unwrap();
    for text in ["A trial, of 1 text: é.\n", "", "\0\u{10ffff}", "256 <s>"] {
        let tokens = served.tokenizer.encode(text, true).unwrap();
        assert_eq!(tokens, text.bytes().map(u32::from).collect::<Vec<_>>(), "{text:?}");
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| served.tokenizer.shown_bytes(token).to_vec()).collect();
        assert_eq!(bytes, text.as_bytes());
    }
    assert_eq!(served.tokenizer.shown_bytes(256), b" 256");
    assert_eq!(served.tokenizer.shown_bytes(1791), b" 1791");
    assert!(served.chat.is_err(), "it has no template");
}
