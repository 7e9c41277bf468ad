//! Services: one for clients over all replicas, and one of each replica by which its ranks find their coordinator.

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::api::service::{ServiceSettings, ServiceType};
use crate::names;
use crate::revision::short_hash;
use crate::validate::Checked;

/// Port of the Service that clients use, where the specification does not say.
const PORT: i32 = 80;

pub(super) fn api(checked: &Checked) -> Service {
    let settings = &checked.deployment.spec.service;
    // No `..`: a setting that is added has its field here before this compiles.
    let ServiceSettings {
        kind,
        port: number,
        node_port,
        labels,
        annotations,
        session_affinity,
        session_affinity_seconds,
        load_balancer_class,
        load_balancer_source_ranges,
        external_traffic_policy,
        ip_family_policy,
    } = settings;
    let text = |text: &'static str| text.to_owned();
    let mut metadata = metadata(&checked.deployment, names::service(&checked.name));
    metadata.labels.get_or_insert_default().extend(labels.clone());
    if !settings.is_default() {
        let json = serde_json::to_vec(settings).expect("settings are plain data");
        let own = (names::SERVICE_SETTINGS.to_owned(), short_hash(&json));
        metadata.annotations = Some(annotations.clone().into_iter().chain([own]).collect());
    }
    let http = ServicePort { node_port: *node_port, ..port("http", number.unwrap_or(PORT), names::API_PORT) };
    let client_ip =
        |seconds| SessionAffinityConfig { client_ip: Some(ClientIPConfig { timeout_seconds: Some(seconds) }) };
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(names::coordinators(&checked.name, None)),
            ports: Some(vec![http]),
            type_: Some(text(kind.unwrap_or(ServiceType::ClusterIP).into())),
            session_affinity: session_affinity.map(|affinity| text(affinity.into())),
            session_affinity_config: session_affinity_seconds.map(client_ip),
            load_balancer_class: load_balancer_class.clone(),
            load_balancer_source_ranges: load_balancer_source_ranges.clone(),
            external_traffic_policy: external_traffic_policy.map(|policy| text(policy.into())),
            ip_family_policy: ip_family_policy.map(|policy| text(policy.into())),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(super) fn coordinator(checked: &Checked, group: usize) -> Service {
    Service {
        metadata: metadata(&checked.deployment, names::coordinator(&checked.name, group)),
        spec: Some(ServiceSpec {
            selector: Some(names::coordinators(&checked.name, Some(group))),
            ports: Some(vec![
                port("http", names::API_PORT, names::API_PORT),
                port("admin", names::ADMIN_PORT, names::ADMIN_PORT),
                port("control", names::CONTROL_PORT, names::CONTROL_PORT),
            ]),
            cluster_ip: Some("None".to_owned()),
            // A coordinator is ready only when its ranks have found it.
            publish_not_ready_addresses: Some(true),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, port: i32, target: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(target)),
        ..ServicePort::default()
    }
}
