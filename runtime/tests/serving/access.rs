//! Keys of both APIs, as a user gives them.

use serde_json::Value;

use crate::group::Group;
use crate::settings::refusal;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn an_admin_api_that_others_reach_needs_a_token_that_cannot_be_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (short, empty) = (file("short", "secret"), file("empty", "\n"));
    let model = ["--model", crate::group::MODEL];
    for (options, expected) in [
        (vec!["--admin-listen", "0.0.0.0:0"], "give --admin-token-file, or listen on 127.0.0.1"),
        (vec!["--admin-token-file", &short], "has a key of 6 bytes, at least 32 are needed"),
        (vec!["--admin-token-file", "/nowhere/token"], "cannot read the keys in /nowhere/token"),
        (vec!["--api-key-file", &empty], "has no key"),
    ] {
        let said = refusal(&[&model, options.as_slice()].concat());
        assert!(said.contains(expected), "{options:?}: {said}");
    }
}

#[tokio::test]
async fn whoever_shows_a_key_is_served_and_probes_need_none() {
    let folder = tempfile::tempdir().unwrap();
    let (token, keys) = (folder.path().join("token"), folder.path().join("keys"));
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::write(&keys, "sk-one\nsk-two\n").unwrap();
    let options = ["--admin-token-file", token.to_str().unwrap(), "--api-key-file", keys.to_str().unwrap()];
    let group = Group::start(1, &options).await;
    let client = reqwest::Client::new();
    let get = |url: &str, key: &str| client.get(url).header("authorization", format!("Bearer {key}")).send();
    for (url, key, expected) in [
        (format!("{}/v1/models", group.url), "sk-two", 200),
        (format!("{}/v1/models", group.url), "sk-three", 401),
        (format!("{}/health", group.url), "", 200),
        (format!("{}/metrics", group.url), "", 200),
        (format!("{}{}", group.admin, plan::wire::path::STATE), TOKEN, 200),
        (format!("{}{}", group.admin, plan::wire::path::STATE), "sk-one", 401),
        (format!("{}/livez", group.admin), "", 200),
        (format!("{}/health", group.admin), "", 200),
        (format!("{}/metrics", group.admin), "", 200),
    ] {
        let answer = get(&url, key).await.unwrap();
        assert_eq!(answer.status(), expected, "{url} with {key:?}");
        if expected == 401 {
            assert!(answer.headers().contains_key("x-request-id"));
            let error: Value = answer.json().await.unwrap();
            assert_eq!(error["error"]["code"], "invalid_api_key");
            assert_eq!(error["error"]["type"], "invalid_request_error");
        }
    }
}
