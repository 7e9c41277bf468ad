//! Services: one for clients over all replicas, and one of each replica by which its ranks find their coordinator.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::names;
use crate::validate::Checked;

pub(super) fn api(checked: &Checked) -> Service {
    Service {
        metadata: metadata(&checked.deployment, names::service(&checked.name)),
        spec: Some(ServiceSpec {
            selector: Some(names::coordinators(&checked.name, None)),
            ports: Some(vec![port("http", 80, names::API_PORT)]),
            type_: Some("ClusterIP".to_owned()),
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
