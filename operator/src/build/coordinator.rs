//! The coordinator pod of a replica.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, Pod, Volume};
use plan::wire::keys::{ADMIN_TOKEN, GROUP_SECRET};
use plan::wire::path;
use plan::wire::process::CoordinatorCommand;

use super::pod::{self, Identity};
use crate::names;
use crate::validate::{Checked, StartMap};

const MAP_FOLDER: &str = "/etc/swiftbalancer/expert-map";
/// How long a coordinator that is to go serves on: until then every node has taken it out of its Service. With what the
/// runtime grants to requests that run, it stays below the 30 s after which a kubelet kills.
const LEAVE_SECONDS: u64 = 3;

pub(super) fn build(checked: &Checked, identity: &Identity<'_>) -> Pod {
    let spec = &checked.deployment.spec;
    let mut container = pod::container(checked, identity, "coordinator".to_owned(), &spec.coordinator.resources);
    container.args = Some(command(checked, identity).arguments());
    container.ports = Some(vec![
        pod::port("http".to_owned(), names::API_PORT),
        pod::port("admin".to_owned(), names::ADMIN_PORT),
        pod::port("control".to_owned(), names::CONTROL_PORT),
    ]);
    container.startup_probe = Some(pod::probe(path::LIVEZ, names::ADMIN_PORT, 1, 600));
    container.liveness_probe = Some(pod::probe(path::LIVEZ, names::ADMIN_PORT, 10, 6));
    container.readiness_probe = Some(pod::probe(path::HEALTH, names::API_PORT, 1, 2));
    let mounts = container.volume_mounts.get_or_insert_default();
    if spec.eplb.expert_map_record_path.is_some() {
        // The map is recorded into the model's volume, so the coordinator, and it alone, may write there.
        mounts.iter_mut().filter(|mount| mount.name == "model").for_each(|mount| mount.read_only = None);
    }
    if matches!(checked.start_map, StartMap::ConfigMap { .. }) {
        mounts.push(pod::mount("expert-map", MAP_FOLDER, true));
    }
    let mut coordinator = pod::pod(checked, identity, vec![container]);
    if let (StartMap::ConfigMap { name, .. }, Some(spec)) = (&checked.start_map, &mut coordinator.spec) {
        spec.volumes.get_or_insert_default().push(map_volume(name));
    }
    coordinator
}

fn map_volume(config_map: &str) -> Volume {
    Volume {
        name: "expert-map".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.to_owned(),
            items: Some(vec![KeyToPath {
                key: names::MAP_KEY.to_owned(),
                path: names::MAP_KEY.to_owned(),
                ..KeyToPath::default()
            }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn command(checked: &Checked, identity: &Identity<'_>) -> CoordinatorCommand {
    let spec = &checked.deployment.spec;
    let eplb = &spec.eplb;
    CoordinatorCommand {
        model: pod::model_path(&spec.model.source),
        served_model_name: spec.model.name.clone(),
        expect_experts: checked.shape.experts,
        ranks: checked.shape.ranks,
        shutdown_delay_seconds: LEAVE_SECONDS,
        num_iterations_eplb_update: pod::number(eplb.num_iterations_eplb_update),
        num_wait_worker_iterations: pod::number(eplb.num_wait_worker_iterations),
        init_redundancy_expert: checked.shape.redundancy,
        eplb_policy: eplb.policy.into(),
        expert_map_path: match &checked.start_map {
            StartMap::Even => None,
            StartMap::InModelSource(path) => Some(pod::source_file(path)),
            StartMap::ConfigMap { .. } => Some(format!("{MAP_FOLDER}/{}", names::MAP_KEY)),
        },
        expert_map_record_path: eplb.expert_map_record_path.as_deref().map(pod::source_file),
        max_queued_requests: spec.coordinator.max_queued_requests.map(pod::number),
        max_model_len: spec.coordinator.max_model_len.map(pod::number),
        dynamic_eplb: eplb.dynamic_eplb,
        secret_file: pod::key_file(identity, GROUP_SECRET),
        admin_token_file: pod::key_file(identity, ADMIN_TOKEN),
    }
}
