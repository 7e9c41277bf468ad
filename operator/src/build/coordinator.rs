//! The coordinator pod of a replica.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, Pod, Volume};

use super::pod::{self, Identity};
use crate::names;
use crate::validate::{Checked, StartMap};

const MAP_FOLDER: &str = "/etc/swiftbalancer/expert-map";
/// How long a coordinator that is to go serves on: until then every node has taken it out of its Service. With what the
/// runtime grants to requests that run, it stays below the 30 s after which a kubelet kills.
const LEAVE_SECONDS: u32 = 3;

pub(super) fn build(checked: &Checked, identity: &Identity<'_>) -> Pod {
    let spec = &checked.deployment.spec;
    let mut container = pod::container(checked, identity, "coordinator".to_owned(), &spec.coordinator.resources);
    container.args = Some(arguments(checked, identity));
    container.ports = Some(vec![
        pod::port("http".to_owned(), names::API_PORT),
        pod::port("admin".to_owned(), names::ADMIN_PORT),
        pod::port("control".to_owned(), names::CONTROL_PORT),
    ]);
    container.startup_probe = Some(pod::probe("/livez", names::ADMIN_PORT, 1, 600));
    container.liveness_probe = Some(pod::probe("/livez", names::ADMIN_PORT, 10, 6));
    container.readiness_probe = Some(pod::probe("/health", names::API_PORT, 1, 2));
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

fn arguments(checked: &Checked, identity: &Identity<'_>) -> Vec<String> {
    let spec = &checked.deployment.spec;
    let eplb = &spec.eplb;
    let mut arguments = vec!["coordinator".to_owned()];
    let mut set = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    set("model", pod::model_path(&spec.model.source));
    set("served-model-name", spec.model.name.clone());
    set("expect-experts", checked.shape.experts.to_string());
    set("ranks", checked.shape.ranks.to_string());
    set("listen", format!("0.0.0.0:{}", names::API_PORT));
    set("admin-listen", format!("0.0.0.0:{}", names::ADMIN_PORT));
    set("control-listen", format!("0.0.0.0:{}", names::CONTROL_PORT));
    set("shutdown-delay-seconds", LEAVE_SECONDS.to_string());
    set("num-iterations-eplb-update", eplb.num_iterations_eplb_update.to_string());
    set("num-wait-worker-iterations", eplb.num_wait_worker_iterations.to_string());
    set("init-redundancy-expert", checked.shape.redundancy.to_string());
    set("eplb-policy", eplb.policy.argument().to_owned());
    match &checked.start_map {
        StartMap::Even => {}
        StartMap::InModelSource(path) => set("expert-map-path", pod::source_file(path)),
        StartMap::ConfigMap { .. } => set("expert-map-path", format!("{MAP_FOLDER}/{}", names::MAP_KEY)),
    }
    if let Some(path) = &eplb.expert_map_record_path {
        set("expert-map-record-path", pod::source_file(path));
    }
    if let Some(requests) = spec.coordinator.max_queued_requests {
        set("max-queued-requests", requests.to_string());
    }
    if let Some(tokens) = spec.coordinator.max_model_len {
        set("max-model-len", tokens.to_string());
    }
    if eplb.dynamic_eplb {
        arguments.push("--dynamic-eplb".to_owned());
    }
    arguments.extend(pod::keys_arguments(identity));
    arguments
}
