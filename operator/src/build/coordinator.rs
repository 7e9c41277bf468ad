//! The coordinator pod of a replica.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, Pod, Volume};
use plan::wire::keys::{ADMIN_TOKEN, GROUP_SECRET};
use plan::wire::path;
use plan::wire::process::{CoordinatorCommand, MoveOptions};

use super::mounts::{API_KEYS_FOLDER, MAP_FOLDER, volume};
use super::pod::{self, Identity};
use crate::api::MoEDeploymentSpec;
use crate::api::eplb::Eplb;
use crate::names;
use crate::validate::{Checked, StartMap};

/// How long a coordinator that is to go serves on: until then every node has taken it out of its Service. With what the
/// runtime grants to requests that run, it stays below the 30 s after which a kubelet kills.
const LEAVE_SECONDS: u64 = 3;
/// What the runtime grants to requests that run, where the specification does not say.
const GRACE_SECONDS: u64 = 25;
/// What a process needs after that to end by itself, before its kubelet kills it.
const END_SECONDS: u64 = 2;
/// How long it may take until it has read checkpoint and map, where the specification does not say.
const STARTUP_SECONDS: i32 = 600;

pub(super) fn build(checked: &Checked, identity: &Identity<'_>) -> Pod {
    let spec = &checked.deployment.spec;
    let mut container = pod::container(checked, identity, "coordinator".to_owned(), &spec.coordinator.resources);
    container.args = Some(command(checked, identity).arguments());
    container.ports = Some(vec![
        pod::port("http".to_owned(), names::API_PORT),
        pod::port("admin".to_owned(), names::ADMIN_PORT),
        pod::port("control".to_owned(), names::CONTROL_PORT),
    ]);
    let startup = spec.coordinator.startup_seconds.unwrap_or(STARTUP_SECONDS);
    container.startup_probe = Some(pod::probe(path::LIVEZ, names::ADMIN_PORT, 1, startup));
    container.liveness_probe = Some(pod::probe(path::LIVEZ, names::ADMIN_PORT, 10, 6));
    container.readiness_probe = Some(pod::probe(path::HEALTH, names::API_PORT, 1, 2));
    let mounts = container.volume_mounts.get_or_insert_default();
    if spec.eplb.expert_map_record_path.is_some() {
        // The map is recorded into the model's volume, so the coordinator, and it alone, may write there.
        mounts.iter_mut().filter(|mount| mount.name == volume::MODEL).for_each(|mount| mount.read_only = None);
    }
    if matches!(checked.start_map, StartMap::ConfigMap { .. }) {
        mounts.push(pod::mount(volume::EXPERT_MAP, MAP_FOLDER, true));
    }
    if spec.coordinator.api_key_secret_ref.is_some() {
        mounts.push(pod::mount(volume::API_KEYS, API_KEYS_FOLDER, true));
    }
    let mut coordinator = pod::pod(checked, identity, vec![container]);
    if let Some(pod) = &mut coordinator.spec {
        let volumes = pod.volumes.get_or_insert_default();
        if let StartMap::ConfigMap { name, .. } = &checked.start_map {
            volumes.push(map_volume(name));
        }
        if let Some(keys) = &spec.coordinator.api_key_secret_ref {
            volumes.push(pod::secret(spec, volume::API_KEYS, keys.name.clone(), &[&keys.key]));
        }
        pod.termination_grace_period_seconds = grace(spec);
    }
    coordinator
}

/// Seconds after which its kubelet kills it; those that Kubernetes itself has, where the specification does not say how it ends.
fn grace(spec: &MoEDeploymentSpec) -> Option<i64> {
    let (delay, grace) = (spec.coordinator.shutdown_delay_seconds, spec.coordinator.shutdown_grace_seconds);
    (delay.is_some() || grace.is_some()).then_some(())?;
    let seconds = delay.map_or(LEAVE_SECONDS, pod::number) + grace.map_or(GRACE_SECONDS, pod::number) + END_SECONDS;
    i64::try_from(seconds).ok()
}

fn map_volume(config_map: &str) -> Volume {
    Volume {
        name: volume::EXPERT_MAP.to_owned(),
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
        shutdown_delay_seconds: spec.coordinator.shutdown_delay_seconds.map_or(LEAVE_SECONDS, pod::number),
        num_iterations_eplb_update: pod::number(eplb.num_iterations_eplb_update),
        num_wait_worker_iterations: pod::number(eplb.num_wait_worker_iterations),
        init_redundancy_expert: checked.shape.redundancy,
        eplb_policy: eplb.policy.into(),
        moves: moves(eplb),
        expert_map_path: match &checked.start_map {
            StartMap::Even => None,
            StartMap::InModelSource(path) => Some(pod::source_file(path)),
            StartMap::ConfigMap { .. } => Some(format!("{MAP_FOLDER}/{}", names::MAP_KEY)),
        },
        expert_map_record_path: eplb.expert_map_record_path.as_deref().map(pod::source_file),
        max_queued_requests: spec.coordinator.max_queued_requests.map(pod::number),
        max_model_len: spec.coordinator.max_model_len.map(pod::number),
        max_running_sequences: spec.coordinator.max_running_sequences.map(pod::number),
        max_step_tokens: spec.coordinator.max_step_tokens.map(pod::number),
        max_body_bytes: spec.coordinator.max_body_bytes.map(pod::number),
        step_deadline_seconds: spec.coordinator.step_deadline_seconds.map(pod::number),
        shutdown_grace_seconds: spec.coordinator.shutdown_grace_seconds.map(pod::number),
        dynamic_eplb: eplb.dynamic_eplb,
        secret_file: pod::key_file(identity, GROUP_SECRET),
        admin_token_file: pod::key_file(identity, ADMIN_TOKEN),
        api_key_file: spec
            .coordinator
            .api_key_secret_ref
            .as_ref()
            .map(|keys| format!("{API_KEYS_FOLDER}/{}", keys.key)),
        process: pod::process(spec),
    }
}

fn moves(eplb: &Eplb) -> MoveOptions {
    MoveOptions {
        minimum_gain: eplb.minimum_gain.clone(),
        staging_pages: eplb.staging_pages.map(pod::number),
        move_bytes_per_second: eplb.move_bytes_per_second.map(pod::number),
        max_rebalance_bytes: eplb.max_rebalance_bytes.map(pod::number),
        cool_down_windows: eplb.cool_down_windows.map(pod::number),
        min_coverage: eplb.min_coverage.map(pod::number),
        min_node_coverage: eplb.min_node_coverage.map(pod::number),
        move_deadline_seconds: eplb.move_deadline_seconds.map(pod::number),
    }
}
