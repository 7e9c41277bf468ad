//! A recorded map as an immutable ConfigMap named by its content, with where it comes from as annotations.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use plan::wire::{Provenance, RecordedMap};

use super::metadata;
use crate::api::MoEDeployment;
use crate::names;

pub(super) fn build(deployment: &MoEDeployment, recorded: &RecordedMap) -> ConfigMap {
    let RecordedMap { map, provenance } = recorded;
    let Provenance { window, window_steps, window_pairs, epoch, ratio } = provenance;
    let hash = map.content_hash();
    let mut metadata = metadata(deployment, names::recorded_map(&deployment.name_any(), &hash));
    metadata.labels.get_or_insert_default().insert(names::EXPERT_MAP.to_owned(), names::RECORDED.to_owned());
    let mut annotations: std::collections::BTreeMap<String, String> = [
        (names::MAP_HASH, hash),
        (names::MAP_MODEL, map.model.name.clone()),
        (names::MAP_MODEL_DIGEST, map.model.digest.clone()),
        (names::MAP_EP_SIZE, map.ranks.to_string()),
        (names::MAP_WINDOW, window.to_string()),
        (names::MAP_WINDOW_STEPS, window_steps.to_string()),
        (names::MAP_WINDOW_PAIRS, window_pairs.to_string()),
        (names::MAP_EPOCH, epoch.to_string()),
        (names::MAP_RATIO, format!("{ratio:.4}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if let Some(revision) = &deployment.spec.model.revision {
        annotations.insert(names::MAP_MODEL_REVISION.to_owned(), revision.clone());
    }
    metadata.annotations = Some(annotations);
    let json = serde_json::to_string(map).expect("a map document is plain data");
    ConfigMap {
        metadata,
        immutable: Some(true),
        data: Some([(names::MAP_KEY.to_owned(), json)].into()),
        ..ConfigMap::default()
    }
}
