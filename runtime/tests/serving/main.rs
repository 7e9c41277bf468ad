//! `swiftbalancer-runtime local` as a user runs it: real processes, real sockets, the small trained model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod access;
mod alone;
mod attack;
mod client;
mod cost;
mod drawn;
mod failure;
mod faults;
mod folders;
mod group;
mod last_word;
mod openai;
mod recording;
mod requests;
mod secret;
mod settings;

use serde_json::{Value, json};

/// A request whose answer is the same on every run.
fn greedy(prompt: &str, max_tokens: u32) -> Value {
    json!({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true})
}
