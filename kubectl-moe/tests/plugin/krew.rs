//! The manifest for krew is of this version, of the archives that it is made from, and names the program that there is.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use super::{text, workspace};

fn manifest(arguments: &[&str]) -> Output {
    Command::new(workspace().join("kubectl-moe/krew.sh")).args(arguments).output().unwrap()
}

#[test]
fn the_manifest_names_every_archive_with_its_platform_and_digest() {
    let folder = std::env::temp_dir().join(format!("kubectl-moe-krew-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let archive = |platform: &str| {
        let path = folder.join(format!("kubectl-moe-{platform}.tar.gz"));
        fs::write(&path, "abc").unwrap();
        path.to_str().unwrap().to_owned()
    };
    let platforms = ["linux-amd64", "linux-arm64", "darwin-arm64"];
    let archives = platforms.map(archive);
    let arguments: Vec<&str> =
        std::iter::once("https://releases.example/v/").chain(archives.iter().map(String::as_str)).collect();
    let output = manifest(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let yaml = text(&output.stdout);
    let document: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    assert_eq!(document["spec"]["version"], format!("v{}", env!("CARGO_PKG_VERSION")));
    assert_eq!((&document["kind"], &document["metadata"]["name"]), (&"Plugin".into(), &"moe".into()));
    let described = document["spec"]["platforms"].as_array().unwrap();
    assert_eq!(described.len(), platforms.len());
    for (described, platform) in described.iter().zip(platforms) {
        let labels = &described["selector"]["matchLabels"];
        assert_eq!(format!("{}-{}", labels["os"].as_str().unwrap(), labels["arch"].as_str().unwrap()), platform);
        assert_eq!(described["uri"], format!("https://releases.example/v/kubectl-moe-{platform}.tar.gz"));
        // The digest of "abc", as FIPS 180-2 has it.
        assert_eq!(described["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(described["bin"], "kubectl-moe");
    }
    let other = archive("plan9-amd64");
    let refused = manifest(&["https://releases.example", &other]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("kubectl-moe-plan9-amd64.tar.gz"));
    assert_eq!(manifest(&["https://releases.example"]).status.code(), Some(2));
    fs::remove_dir_all(&folder).unwrap();
}
