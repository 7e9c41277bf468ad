//! `prompt`: text or tokens, one or more. Read straight into what is kept, so that a body of token ids costs no more than
//! its tokens; the rest of a list that is too long is counted and not kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// Prompts of one request at most.
pub const PROMPTS_AT_MOST: usize = 2048;

/// Prompts as a request has them.
#[derive(Debug, PartialEq, Eq)]
pub enum Prompts {
    Texts(Vec<String>),
    Tokens(Vec<TokenList>),
}

/// A prompt of tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenList {
    /// All of them, or the first ones of a list that is longer than any prompt may be.
    pub tokens: Vec<u32>,
    /// How many the request has.
    pub count: usize,
}

/// Reads prompts of which none is kept beyond so many tokens.
pub struct ReadPrompts {
    pub tokens_at_most: usize,
}

impl<'de> DeserializeSeed<'de> for ReadPrompts {
    type Value = Prompts;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Prompts, D::Error> {
        match (Items { tokens_at_most: self.tokens_at_most, depth: 0 }).deserialize(deserializer)? {
            Item::Text(text) => Ok(Prompts::Texts(vec![text])),
            Item::Texts(texts) => Ok(Prompts::Texts(texts)),
            Item::Tokens(list) => Ok(Prompts::Tokens(vec![list])),
            Item::Lists(lists) => Ok(Prompts::Tokens(lists)),
            Item::Token(token) => Err(D::Error::invalid_type(Unexpected::Unsigned(token.into()), &EXPECTED)),
        }
    }
}

const EXPECTED: &str = "a string, a list of strings, a list of tokens or a list of lists of tokens";

/// A prompt, or a part of one.
enum Item {
    Text(String),
    Texts(Vec<String>),
    Token(u32),
    Tokens(TokenList),
    Lists(Vec<TokenList>),
}

/// Reads what stands `depth` lists deep.
#[derive(Clone, Copy)]
struct Items {
    tokens_at_most: usize,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Item;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, token: u64) -> Result<Item, E> {
        u32::try_from(token).map(Item::Token).map_err(|_| E::invalid_value(Unexpected::Unsigned(token), &self))
    }

    /// A token is whole by value, however it is written.
    fn visit_f64<E: Error>(self, token: f64) -> Result<Item, E> {
        let whole = token.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&token);
        whole.then_some(Item::Token(token as u32)).ok_or_else(|| E::invalid_value(Unexpected::Float(token), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Item, E> {
        Ok(Item::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let inner = Self { depth: self.depth + 1, ..self };
        match list.next_element_seed(inner)? {
            None if self.depth == 0 => Ok(Item::Texts(Vec::new())),
            None => Ok(Item::Tokens(TokenList { tokens: Vec::new(), count: 0 })),
            Some(Item::Token(first)) => self.tokens(first, list).map(Item::Tokens),
            Some(Item::Text(first)) if self.depth == 0 => {
                let texts =
                    rest(first, list, inner, |item| if let Item::Text(text) = item { Some(text) } else { None });
                texts.map(Item::Texts)
            }
            Some(Item::Tokens(first)) if self.depth == 0 => {
                let lists =
                    rest(first, list, inner, |item| if let Item::Tokens(list) = item { Some(list) } else { None });
                lists.map(Item::Lists)
            }
            Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }
}

impl Prompts {
    /// How many there are, or [`PROMPTS_AT_MOST`] and one if there are more.
    pub const fn count(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }
}

impl Items {
    fn tokens<'de, A: SeqAccess<'de>>(self, first: u32, mut list: A) -> Result<TokenList, A::Error> {
        let (mut tokens, mut count) = (vec![first], 1);
        while let Some(item) = list.next_element_seed(Self { depth: self.depth + 1, ..self })? {
            let Item::Token(token) = item else { return Err(A::Error::invalid_type(Unexpected::Seq, &self)) };
            count += 1;
            if tokens.len() < self.tokens_at_most {
                tokens.push(token);
            }
        }
        tokens.shrink_to_fit();
        Ok(TokenList { tokens, count })
    }
}

/// A list whose items are all of the first one's kind.
fn rest<'de, A: SeqAccess<'de>, T>(
    first: T,
    mut list: A,
    inner: Items,
    kind: impl Fn(Item) -> Option<T>,
) -> Result<Vec<T>, A::Error> {
    let mut items = vec![first];
    while let Some(item) = list.next_element_seed(inner)? {
        let item = kind(item).ok_or_else(|| A::Error::invalid_type(Unexpected::Seq, &inner))?;
        // One too many is kept, for whoever checks to see.
        if items.len() <= PROMPTS_AT_MOST {
            items.push(item);
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Prompts, serde_json::Error> {
        ReadPrompts { tokens_at_most: 3 }.deserialize(&mut serde_json::Deserializer::from_str(json))
    }

    fn list(tokens: &[u32], count: usize) -> TokenList {
        TokenList { tokens: tokens.to_vec(), count }
    }

    #[test]
    fn prompts_have_four_forms_and_no_other() {
        assert_eq!(read(r#""a""#).unwrap(), Prompts::Texts(vec!["a".to_owned()]));
        assert_eq!(read(r#"["a", "b"]"#).unwrap(), Prompts::Texts(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read("[1, 2]").unwrap(), Prompts::Tokens(vec![list(&[1, 2], 2)]));
        assert_eq!(read("[1.0, 2e0, -0]").unwrap(), Prompts::Tokens(vec![list(&[1, 2, 0], 3)]));
        assert_eq!(
            read("[[1], [], [2, 3]]").unwrap(),
            Prompts::Tokens(vec![list(&[1], 1), list(&[], 0), list(&[2, 3], 2)])
        );
        assert_eq!(read("[]").unwrap(), Prompts::Texts(Vec::new()));
        for bad in [
            "1",
            "{}",
            "null",
            "true",
            r#"["a", 1]"#,
            r#"[1, "a"]"#,
            "[[1], 2]",
            r#"[["a"]]"#,
            "[[[1]]]",
            "[-1]",
            "[4294967296]",
            "[1.5]",
            "[[1], null]",
        ] {
            assert!(read(bad).unwrap_err().is_data(), "{bad}");
        }
    }

    #[test]
    fn what_no_prompt_may_have_is_counted_and_not_kept() {
        assert_eq!(read("[[1, 2, 3, 4, 5], [6]]").unwrap(), Prompts::Tokens(vec![list(&[1, 2, 3], 5), list(&[6], 1)]));
        let many = format!("[{}]", vec!["\"\""; 2 * PROMPTS_AT_MOST].join(","));
        assert!(matches!(read(&many), Ok(Prompts::Texts(texts)) if texts.len() == PROMPTS_AT_MOST + 1));
    }
}
