//! The container that downloads the checkpoint, first of all in every pod that reads it; pods that share the volume find it there.

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, EphemeralVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, SecretKeySelector, Volume, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use plan::wire::process::{DOWNLOAD_PROGRAM, DownloadCommand, DownloadSource, variable};
use plan::words::hexadecimal;
use sha2::{Digest as _, Sha256};

use super::mounts::{DOWNLOAD, MODEL, volume};
use super::pod::{self, Identity};
use crate::api::model::{DownloadVolume, ModelSource};
use crate::names::Role;
use crate::validate::Checked;

/// What of the runtime's own container in a template holds for the download too: how the world outside is reached, and which
/// certificates are trusted there.
const SHARED_VARIABLES: [&str; 10] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The container, if there is something to download.
pub(super) fn container(checked: &Checked, identity: &Identity<'_>) -> Option<Container> {
    let spec = &checked.deployment.spec;
    let source = &spec.model.source;
    // As much as the runtime asks for, so that a pod asks for no more with it and every quota that takes one takes the other.
    let resources = match identity.role {
        Role::Coordinator => &spec.coordinator.resources,
        Role::Rank => &spec.ranks.resources,
    };
    let from = from(checked)?;
    let mut container = pod::container(checked, identity, DOWNLOAD.to_owned(), resources);
    container.command = Some(vec![DOWNLOAD_PROGRAM.to_owned()]);
    let folder = pod::model_path(source);
    let log_format = spec.runtime.log_format.map(Into::into);
    container.args = Some(DownloadCommand { source: from, folder, log_format }.arguments());
    container.env.get_or_insert_default().extend(secrets(source));
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| mount.name != volume::KEYS);
    mounts.iter_mut().filter(|mount| mount.name == volume::MODEL).for_each(|mount| mount.read_only = None);
    Some(container)
}

fn from(checked: &Checked) -> Option<DownloadSource> {
    let source = &checked.deployment.spec.model.source;
    if let Some(hub) = &source.hugging_face {
        let status = checked.deployment.status.as_ref().and_then(|status| status.model.as_ref());
        let pinned = status.filter(|model| model.repo == hub.repo && model.revision == hub.revision);
        return Some(DownloadSource::HuggingFace {
            repository: hub.repo.clone(),
            revision: hub.revision.clone(),
            commit: pinned.map(|model| model.commit.clone()),
            endpoint: hub.endpoint.clone(),
        });
    }
    source.s3.as_ref().map(|store| DownloadSource::S3 {
        // A kubelet puts variables into a command line wherever it finds `$(`.
        url: store.url.replace('$', "$$"),
        region: store.region.clone(),
        endpoint: store.endpoint.as_ref().map(|endpoint| endpoint.replace('$', "$$")),
    })
}

fn secrets(source: &ModelSource) -> Vec<EnvVar> {
    let of = |name: &str, secret: &str, key: &str, optional: bool| {
        let key =
            SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: optional.then_some(true) };
        let from = EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() };
        EnvVar { name: name.to_owned(), value: None, value_from: Some(from) }
    };
    let token = source.hugging_face.as_ref().and_then(|hub| hub.token_secret_ref.as_ref());
    let keys = source.s3.as_ref().and_then(|store| store.credentials_secret_ref.as_ref());
    let of_hub = token.map(|token| of(variable::HUB_TOKEN, &token.name, &token.key, false));
    let of_store = keys.into_iter().flat_map(|keys| {
        let keys = keys.name.as_str();
        [(variable::S3_KEY_ID, false), (variable::S3_SECRET_KEY, false), (variable::S3_SESSION_TOKEN, true)]
            .map(|(name, optional)| of(name, keys, name, optional))
    });
    of_hub.into_iter().chain(of_store).collect()
}

/// The first twelve digits of the SHA-256, which tell places apart.
fn hash(text: &str) -> String {
    hexadecimal(&Sha256::digest(text)[..6])
}

/// Folder of the checkpoint in its volume: each source and revision has one of its own, so that a deployment that goes on to
/// another never changes what pods read that still run.
pub(super) fn folder(source: &ModelSource) -> Option<String> {
    let name = if let Some(hub) = &source.hugging_face {
        // A mirror may have something else under the same name.
        let at = hub.endpoint.as_deref().map(|endpoint| format!("@{}", hash(endpoint.trim_end_matches('/'))));
        format!("{}@{}{}", hub.repo.replace('/', "--"), hub.revision.replace('/', "--"), at.unwrap_or_default())
    } else {
        let store = source.s3.as_ref()?;
        let place = format!("{}\n{}", store.endpoint.as_deref().unwrap_or_default(), store.url.trim_end_matches('/'));
        let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        let last = store.url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let last: String = last.chars().filter(is_plain).take(64).collect();
        format!("s3--{last}@{}", hash(&place))
    };
    let path = source.download_volume().and_then(|volume| volume.path.as_deref());
    Some(path.map_or_else(|| name.clone(), |path| format!("{}/{name}", path.trim_end_matches('/'))))
}

/// The volume that it is downloaded to.
pub(super) fn volume(DownloadVolume { claim_name, path: _, ephemeral }: &DownloadVolume) -> Volume {
    let claim = claim_name.clone().map(|claim_name| PersistentVolumeClaimVolumeSource { claim_name, read_only: None });
    let own = ephemeral.as_ref().map(|own| EphemeralVolumeSource {
        volume_claim_template: Some(PersistentVolumeClaimTemplate {
            metadata: None,
            spec: PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                storage_class_name: own.storage_class_name.clone(),
                resources: Some(VolumeResourceRequirements {
                    requests: Some([("storage".to_owned(), Quantity(own.size.clone()))].into()),
                    limits: None,
                }),
                ..PersistentVolumeClaimSpec::default()
            },
        }),
    });
    Volume { name: volume::MODEL.to_owned(), persistent_volume_claim: claim, ephemeral: own, ..Volume::default() }
}

/// Gives the download of a pod what its template says of how the world outside is reached, with the files that this names.
pub(super) fn with_template(mut pod: Pod) -> Pod {
    let Some(PodSpec { init_containers: Some(inits), containers, .. }) = &mut pod.spec else { return pod };
    let (Some(download), Some(own)) = (inits.iter_mut().find(|init| init.name == DOWNLOAD), containers.first()) else {
        return pod;
    };
    let shared = |variable: &&EnvVar| SHARED_VARIABLES.contains(&variable.name.as_str());
    let variables: Vec<EnvVar> = own.env.iter().flatten().filter(shared).cloned().collect();
    download.env.get_or_insert_default().extend(variables);
    let operators =
        [volume::MODEL, volume::SCRATCH, volume::KEYS, volume::EXPERT_MAP, volume::SHARED_MEMORY, volume::API_KEYS];
    let added = own
        .volume_mounts
        .iter()
        .flatten()
        .filter(|mount| !operators.contains(&mount.name.as_str()) && !mount.mount_path.starts_with(MODEL));
    download.volume_mounts.get_or_insert_default().extend(added.cloned());
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_source_and_revision_has_a_folder_of_its_own() {
        let of = |endpoint: Option<&str>, revision: &str, path: Option<&str>| {
            let source = json!({
                "type": "HuggingFace",
                "huggingFace": {
                    "repo": "Org/Model", "revision": revision, "endpoint": endpoint,
                    "volume": {"claimName": "models", "path": path},
                },
            });
            folder(&serde_json::from_value(source).unwrap()).unwrap()
        };
        assert_eq!(of(None, "main", None), "Org--Model@main");
        assert_eq!(of(None, "a/b", Some("deep/")), "deep/Org--Model@a--b");
        // A mirror may have another model of the same name.
        let mirror = of(Some("http://mirror:8080"), "main", None);
        assert!(mirror.starts_with("Org--Model@main@") && mirror.len() == "Org--Model@main@".len() + 12, "{mirror}");
        assert_eq!(mirror, of(Some("http://mirror:8080/"), "main", None));
        assert_ne!(mirror, of(Some("http://other:8080"), "main", None));
    }
}
