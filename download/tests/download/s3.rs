//! From a store that speaks S3.

use std::fs;

use download::s3::Bucket;
use download::source::Source;

use super::fake_hub::{READ, checkpoint};
use super::fake_store::FakeStore;
use super::server::Answer;
use super::{download, settings};

#[test]
fn a_listing_of_several_pages_is_downloaded_and_every_request_is_signed() {
    let store = FakeStore::start(checkpoint());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    let record = download(&settings(store.source("s3://models/tiny"), &folder)).unwrap();
    assert_eq!(record.commit, None);
    for name in READ {
        assert_eq!(fs::read(folder.join(name)).unwrap(), checkpoint()[name], "{name}");
    }
    assert!(!folder.join("pytorch_model.bin").exists());
    // Once to know what there is, and once to know that it still is.
    assert_eq!(store.server.count("list-type"), 2 * checkpoint().len().div_ceil(2));
}

#[test]
fn an_object_is_gone_on_with_only_while_it_is_the_same() {
    let store = FakeStore::start(checkpoint());
    for cut in [100_000, 1, 150_000] {
        store.fault(move |mut answer| {
            answer.cut = Some(cut);
            answer
        });
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(store.source("s3://models/tiny/"), &folder)).unwrap();
    assert_eq!(store.server.sent("model-1-of-2"), 300_000);
    let log = store.server.log();
    let of_it = log.iter().filter(|(asked, _)| asked.method == "GET" && asked.target.contains("model-1-of-2"));
    assert!(of_it.into_iter().all(|(asked, _)| asked.header("if-match").is_some()));
    store.fault(|_| Answer::new(412, "<Error><Code>PreconditionFailed</Code></Error>"));
    let error = download(&settings(store.source("s3://models/tiny"), &place.path().join("n"))).unwrap_err().to_string();
    assert!(error.contains("was replaced while it was read"), "{error}");
}

#[test]
fn an_object_that_is_not_what_the_store_says_is_read_again() {
    let store = FakeStore::start(checkpoint());
    let spoil = |mut answer: Answer| {
        answer.body[1000] ^= 1;
        answer
    };
    store.fault(spoil);
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(store.source("s3://models/tiny"), &folder)).unwrap();
    assert_eq!(fs::read(folder.join("model-1-of-2.safetensors")).unwrap(), checkpoint()["model-1-of-2.safetensors"]);
    for _ in 0..3 {
        store.fault(spoil);
    }
    let error = download(&settings(store.source("s3://models/tiny"), &place.path().join("n"))).unwrap_err().to_string();
    assert!(error.contains("MD5"), "{error}");
}

#[test]
fn what_a_store_refuses_is_told_with_what_to_do() {
    let store = FakeStore::start(checkpoint());
    let place = tempfile::tempdir().unwrap();
    let of = |source| download(&settings(source, &place.path().join("m"))).unwrap_err().to_string();
    let error = of(store.source("s3://other/tiny"));
    assert!(error.contains("404 (NoSuchBucket: words): the store has no such bucket"), "{error}");
    let unsigned = Bucket::new(Some(&store.server.url()), "s3://models/tiny", None, None).unwrap();
    let error = of(Source::S3(unsigned));
    assert!(error.contains("403") && error.contains("credentialsSecretRef"), "{error}");
    for (code, words) in [
        ("SignatureDoesNotMatch", "does not take the keys"),
        ("AuthorizationHeaderMalformed", "model.source.s3.region"),
        ("RequestTimeTooSkewed", "the clock of the node"),
    ] {
        store.fault(move |_| Answer::new(403, format!("<Error><Code>{code}</Code></Error>")));
        let error = of(store.source("s3://models/tiny"));
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_signed_request_is_not_led_to_another_host() {
    let store = FakeStore::start(checkpoint());
    store.fault(|_| Answer::new(307, "").with("location", "http://127.0.0.2:1/elsewhere"));
    let place = tempfile::tempdir().unwrap();
    let error = download(&settings(store.source("s3://models/tiny"), &place.path().join("m"))).unwrap_err().to_string();
    assert!(error.contains("signed for one host"), "{error}");
}

#[test]
fn a_bucket_of_another_region_is_told_though_its_answer_leads_nowhere() {
    let store = FakeStore::start(checkpoint());
    store.fault(|_| Answer::new(301, "<Error><Code>PermanentRedirect</Code></Error>"));
    let place = tempfile::tempdir().unwrap();
    let error = download(&settings(store.source("s3://models/tiny"), &place.path().join("m"))).unwrap_err().to_string();
    assert!(error.contains("set region and endpoint of model.source.s3"), "{error}");
}

#[test]
fn objects_of_which_one_was_replaced_meanwhile_are_no_checkpoint() {
    let store = FakeStore::start(checkpoint());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    let replaced = std::sync::Arc::clone(&store.replaced);
    store.fault(move |answer| {
        replaced.store(true, std::sync::atomic::Ordering::SeqCst);
        answer
    });
    let error = download(&settings(store.source("s3://models/tiny"), &folder)).unwrap_err().to_string();
    assert!(error.contains("config.json was replaced while it was downloaded with others"), "{error}");
    assert!(!folder.exists());
}
