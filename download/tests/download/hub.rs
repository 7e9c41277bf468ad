//! From a hub of models.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use download::error::DownloadError;
use download::folder::Folder;
use download::hub::Hub;
use download::source::Source;

use super::fake_hub::{Behaviour, COMMIT, FakeHub, Files, LATER, READ, TOKEN, checkpoint};
use super::{download, settings};

fn names(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            names.extend(self::names(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else if !name.starts_with('.') {
            names.insert(name);
        }
    }
    names
}

fn assert_whole(folder: &Path, files: &Files) {
    assert_eq!(Vec::from_iter(names(folder)), READ);
    for name in READ {
        assert_eq!(fs::read(folder.join(name)).unwrap(), files[name], "{name}");
    }
}

#[test]
fn what_the_runtime_reads_arrives_and_the_token_goes_to_the_hub_alone() {
    let hub = FakeHub::start(checkpoint(), Behaviour { is_private: true, ..Behaviour::default() });
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("org--model");
    let record = download(&settings(hub.source(Some(TOKEN)), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
    assert_eq!(record.commit.as_deref(), Some(COMMIT));
    assert!(hub.api.log().iter().all(|(asked, _)| asked.header("authorization").is_some()));
    assert_eq!(hub.cdn.log().len(), 2);
    for (asked, _) in hub.cdn.log() {
        assert_eq!(asked.header("authorization"), None, "{}", asked.target);
    }
    // The second time nothing is asked for.
    let before = hub.api.log().len();
    assert_eq!(download(&settings(hub.source(Some(TOKEN)), &folder)).unwrap(), record);
    assert_eq!(hub.api.log().len(), before);
}

#[test]
fn what_is_interrupted_goes_on_where_it_was_and_no_byte_is_sent_twice() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    for cut in [70_000, 1, 130_000] {
        hub.behaviour.fault("model-1-of-2", move |mut answer| {
            answer.cut = Some(cut);
            answer
        });
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
    assert_eq!(hub.cdn.sent("model-1-of-2"), 300_000);
    let begins: Vec<usize> = hub
        .cdn
        .log()
        .iter()
        .filter(|(asked, _)| asked.target.contains("model-1"))
        .map(|(asked, _)| asked.from())
        .collect();
    assert_eq!(begins, [0, 70_000, 70_001, 200_001]);
}

#[test]
fn a_run_that_gave_up_is_gone_on_with_by_the_next_and_a_branch_that_moved_meanwhile_changes_nothing() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    hub.behaviour.fault("model-1-of-2", |mut answer| {
        answer.cut = Some(50_000);
        answer
    });
    for _ in 0..3 {
        hub.behaviour.fault("model-1-of-2", |_| super::server::Answer::new(503, ""));
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    let error = download(&settings(hub.source(None), &folder)).unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { .. }) && error.to_string().contains("503"), "{error}");
    assert!(!folder.exists(), "half a model has the name of a whole one");
    *hub.behaviour.commit.lock().unwrap() = Some(LATER);
    let record = download(&settings(hub.source(None), &folder)).unwrap();
    assert_eq!(record.commit.as_deref(), Some(COMMIT));
    assert_whole(&folder, &checkpoint());
    assert_eq!(hub.cdn.sent("model-1-of-2"), 300_000);
}

#[test]
fn a_pinned_commit_is_read_whatever_the_branch_stands_for() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    *hub.behaviour.commit.lock().unwrap() = Some(LATER);
    let place = tempfile::tempdir().unwrap();
    let mut pinned = settings(hub.source(None), &place.path().join("m"));
    pinned.commit = Some(COMMIT.to_owned());
    assert_eq!(download(&pinned).unwrap().commit.as_deref(), Some(COMMIT));
    pinned.commit = Some(LATER.to_owned());
    let error = download(&pinned).unwrap_err().to_string();
    assert!(error.contains(COMMIT) && error.contains(LATER), "{error}");
}

#[test]
fn limits_and_errors_that_pass_are_waited_for() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    hub.behaviour.fault("/api/", |_| super::server::Answer::new(429, "").with("retry-after", "0"));
    hub.behaviour.fault("/api/", |_| super::server::Answer::new(502, "<html>"));
    hub.behaviour.fault("config.json", |mut answer| {
        answer.cut = Some(0);
        answer
    });
    hub.behaviour
        .fault("model-2-of-2", |_| super::server::Answer::new(429, "").with("ratelimit", "\"resolvers\";r=0;t=0"));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
    assert_eq!(hub.api.count("/api/"), 3);
}

#[test]
fn content_that_is_not_what_the_hub_says_is_read_again_and_never_kept() {
    let spoil = |mut answer: super::server::Answer| {
        if let Some(byte) = answer.body.first_mut() {
            *byte ^= 1;
        }
        answer
    };
    for name in ["model-2-of-2", "tokenizer.json"] {
        let hub = FakeHub::start(checkpoint(), Behaviour::default());
        hub.behaviour.fault(name, spoil);
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("m");
        download(&settings(hub.source(None), &folder)).unwrap();
        assert_whole(&folder, &checkpoint());
        for _ in 0..3 {
            hub.behaviour.fault(name, spoil);
        }
        let other = place.path().join("other");
        let error = download(&settings(hub.source(None), &other)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("is not what the source says"), "{error}");
        assert!(!other.exists());
    }
}

#[test]
fn a_hub_that_gives_whole_files_alone_is_read_from_the_beginning() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    hub.behaviour.fault("model-1-of-2", |mut answer| {
        answer.cut = Some(1000);
        answer
    });
    hub.behaviour.fault("model-1-of-2", |answer| super::server::Answer {
        status: 200,
        headers: Vec::new(),
        body: checkpoint()["model-1-of-2.safetensors"].clone(),
        ..answer
    });
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
}

#[test]
fn a_mirror_that_lists_names_alone_is_asked_for_sizes_and_checksums() {
    let hub = FakeHub::start(checkpoint(), Behaviour { is_terse: true, ..Behaviour::default() });
    hub.behaviour.fault("tokenizer.json", |mut answer| {
        answer.body[7] ^= 1;
        answer
    });
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
    assert_eq!(hub.api.log().iter().filter(|(asked, _)| asked.method == "HEAD").count(), READ.len());
}

#[test]
fn what_a_hub_refuses_is_told_with_what_to_do() {
    let told = |token: Option<&str>, status: u16, code: &'static str| {
        let hub = FakeHub::start(checkpoint(), Behaviour::default());
        hub.behaviour.fault("/api/", move |_| super::server::Answer::new(status, "").with("x-error-code", code));
        let place = tempfile::tempdir().unwrap();
        let error = download(&settings(hub.source(token), &place.path().join("m"))).unwrap_err();
        assert_eq!(hub.api.count("/api/"), 1, "{status} is not tried again");
        error.to_string()
    };
    for (token, status, code, words) in [
        (None, 401, "RepoNotFound", "name a Secret with a token in tokenSecretRef"),
        (None, 401, "GatedRepo", "ask for access on its page"),
        (None, 404, "RevisionNotFound", "check model.source.huggingFace.revision"),
        (None, 404, "", "check repo, revision and endpoint"),
        (Some(TOKEN), 401, "", "the token is not valid"),
        (Some(TOKEN), 403, "GatedRepo", "the account of the token may not read"),
        (Some(TOKEN), 404, "RepoNotFound", "the account of the token may not see it"),
    ] {
        let error = told(token, status, code);
        assert!(error.contains(words) && error.contains(&status.to_string()) && !error.contains(TOKEN), "{error}");
    }
}

#[test]
fn a_listing_with_names_that_lead_out_of_the_folder_is_refused_before_anything_is_read() {
    for name in ["../evil.safetensors", "/etc/evil.json", "a/../../evil"] {
        let mut files = checkpoint();
        files.insert(name.to_owned(), b"x".to_vec());
        let hub = FakeHub::start(files, Behaviour::default());
        let place = tempfile::tempdir().unwrap();
        let error = download(&settings(hub.source(None), &place.path().join("m"))).unwrap_err();
        assert!(matches!(&error, DownloadError::UnsafeName { name: told } if told == name), "{error}");
        assert_eq!((hub.api.count("resolve"), hub.cdn.log().len()), (0, 0));
    }
}

#[test]
fn a_volume_that_is_too_small_is_told_before_weights_are_read() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    hub.behaviour.fault("/api/", |answer| {
        let listing = String::from_utf8(answer.body.clone()).unwrap();
        let huge = listing.replace("\"size\":300000", "\"size\":4611686018427387904");
        super::server::Answer { body: huge.into_bytes(), ..answer }
    });
    let place = tempfile::tempdir().unwrap();
    let error = download(&settings(hub.source(None), &place.path().join("m"))).unwrap_err();
    assert!(matches!(error, DownloadError::Space { .. }), "{error}");
    assert_eq!(hub.cdn.log().len(), 0);
}

#[test]
fn of_pods_that_share_a_volume_one_downloads_and_the_others_wait() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..4).map(|_| scope.spawn(|| download(&settings(hub.source(None), &folder)).unwrap())).collect();
        let records: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        assert!(records.iter().all(|record| *record == records[0]));
    });
    assert_whole(&folder, &checkpoint());
    assert_eq!((hub.cdn.sent("model-1-of-2"), hub.cdn.sent("model-2-of-2")), (300_000, 100_001));
}

#[test]
fn a_file_that_was_deleted_or_cut_off_is_fetched_again_and_no_other() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(hub.source(None), &folder)).unwrap();
    fs::remove_file(folder.join("model-2-of-2.safetensors")).unwrap();
    fs::write(folder.join("tokenizer.json"), "").unwrap();
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
    assert_eq!((hub.cdn.sent("model-1-of-2"), hub.cdn.sent("model-2-of-2")), (300_000, 200_002));
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), "mine").unwrap();
    let error = download(&settings(hub.source(None), &folder)).unwrap_err();
    assert!(matches!(error, DownloadError::OtherSource { .. }), "{error}");
    assert_eq!(fs::read_to_string(folder.join("config.json")).unwrap(), "mine");
    assert!(Folder::new(&folder).whole().unwrap().is_none());
}

#[test]
fn a_file_that_was_cut_off_counts_for_nothing_however_much_of_it_was_fetched_again() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    download(&settings(hub.source(None), &folder)).unwrap();
    let (name, bytes) = ("model-2-of-2.safetensors", &checkpoint()["model-2-of-2.safetensors"]);
    // As a download leaves it that ended between the last byte and the checksum, and one that was wrong at that.
    let partial = place.path().join("m.partial");
    fs::rename(&folder, &partial).unwrap();
    fs::write(partial.join(name), &bytes[..50_000]).unwrap();
    let mut wrong = bytes.clone();
    wrong[7] ^= 1;
    fs::write(partial.join(format!("{name}.part")), &wrong).unwrap();
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
}

#[test]
fn a_record_that_names_files_elsewhere_has_none_of_them_deleted() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let (folder, other) = (place.path().join("m"), place.path().join("other"));
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("model.safetensors"), "of another deployment").unwrap();
    let partial = place.path().join("m.partial");
    fs::create_dir_all(&partial).unwrap();
    let record = r#"{"form": 1, "source": "x", "commit": null, "files": {"../other/model.safetensors": {"size": 1, "version": null}}}"#;
    fs::write(partial.join(".swiftbalancer-download.json"), record).unwrap();
    download(&settings(hub.source(None), &folder)).unwrap();
    assert_whole(&folder, &checkpoint());
    assert_eq!(fs::read_to_string(other.join("model.safetensors")).unwrap(), "of another deployment");
}

#[test]
fn an_index_names_files_of_weights_alone() {
    for name in [".swiftbalancer-download.json", "config.json", "a/model.safetensors", "model-1-of-2.safetensors.part"]
    {
        let mut files = checkpoint();
        files.insert(name.to_owned(), b"{}".to_vec());
        let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
        files.insert("model.safetensors.index.json".to_owned(), index.into_bytes());
        let hub = FakeHub::start(files, Behaviour::default());
        let place = tempfile::tempdir().unwrap();
        let error = download(&settings(hub.source(None), &place.path().join("m"))).unwrap_err().to_string();
        assert!(error.contains(&format!("it names {name:?}")), "{error}");
    }
}

#[test]
fn a_hub_that_begins_anew_and_comes_no_further_is_given_up() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    for cut in [80_000, 60_000, 70_000, 60_000, 70_000, 60_000] {
        hub.behaviour.fault("model-1-of-2", move |answer| super::server::Answer {
            status: 200,
            headers: Vec::new(),
            body: checkpoint()["model-1-of-2.safetensors"].clone(),
            cut: Some(cut),
            ..answer
        });
    }
    let place = tempfile::tempdir().unwrap();
    let error = download(&settings(hub.source(None), &place.path().join("m"))).unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { attempts: 4, .. }), "{error}");
}

#[test]
fn a_revision_that_is_a_commit_is_that_commit() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    hub.behaviour.fault("/api/", |answer| {
        let other = String::from_utf8(answer.body.clone()).unwrap().replace(COMMIT, LATER);
        super::server::Answer { body: other.into_bytes(), ..answer }
    });
    let place = tempfile::tempdir().unwrap();
    let source = Source::Hub(Hub::new(Some(&hub.api.url()), "Org/Model", COMMIT, None).unwrap());
    let error = download(&settings(source, &place.path().join("m"))).unwrap_err().to_string();
    assert!(error.contains(&format!("it is of commit {LATER}")), "{error}");
}
