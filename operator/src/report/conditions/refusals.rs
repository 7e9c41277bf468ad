//! A refusal in the words of a condition.

use crate::api::conditions::Reason;
use crate::gpus::Unlike;
use crate::host_paths::AllowedHostPaths;
use crate::names;
use crate::validate::Refusal;

/// A refusal as reason and message.
pub(in crate::report) fn describe(refusal: &Refusal) -> (Reason, String) {
    match refusal {
        Refusal::Specification(broken) => (Reason::Invalid, broken.join("; ")),
        Refusal::HostPathNotAllowed { at, path, allowed } => {
            (Reason::HostPathNotAllowed, not_allowed(at, path, allowed))
        }
        Refusal::MapMissing { config_map } => (
            Reason::ExpertMapMissing,
            format!("ConfigMap {config_map} of eplb.expertMapRef does not exist in this namespace"),
        ),
        Refusal::MapNotRecorded { deployment } => (
            Reason::ExpertMapNotRecorded,
            format!("MoEDeployment {deployment} of eplb.expertMapRef does not exist or has not recorded a map yet"),
        ),
        Refusal::MapInvalid { config_map, problem } => (
            Reason::ExpertMapInvalid,
            format!("ConfigMap {config_map} holds no valid map under {:?}: {problem}", names::MAP_KEY),
        ),
        Refusal::MapIncompatible { config_map, difference } => {
            (Reason::ExpertMapIncompatible, format!("the map in ConfigMap {config_map} does not fit: {difference}"))
        }
        Refusal::InsufficientGpus { resource, needed, offered, per_pod } => {
            let pods = if *per_pod > 1 { format!(" in pods of {per_pod}") } else { String::new() };
            let message = format!(
                "{needed} {resource} are needed and all nodes together offer {offered}{pods}: add nodes, or lower replicas or \
                 parallelism.data"
            );
            (Reason::InsufficientGPUs, message)
        }
        Refusal::GpusPerPodTooMany { resource, per_pod, most } => (
            Reason::GPUsPerPodTooMany,
            format!(
                "gpusPerPod is {per_pod} and no node offers more than {most} {resource}: lower gpusPerPod, or add nodes that \
                 have as many"
            ),
        ),
        Refusal::GpusNotAlike(unlike) => (Reason::GPUsNotAlike, not_alike(unlike)),
        Refusal::GpusNotSupported => (
            Reason::GPUsNotSupported,
            "the operator was given no image of a runtime that computes on GPUs: set runtime.gpuImage of the chart, name one \
             in runtime.image, or set gpusPerPod to 0"
                .to_owned(),
        ),
    }
}

/// Longest part of a node's name, or of a label's value, that a message repeats.
const LONGEST_LABEL: usize = 40;

fn not_alike(Unlike { label, first, second }: &Unlike) -> String {
    let short = |text: &str| text.chars().take(LONGEST_LABEL).collect::<String>();
    let said = |(node, value): &(String, String)| format!("{:?} on {}", short(value), short(node));
    format!(
        "the nodes that it may use have unlike GPUs, which compute unlike: {label} is {} and {}; choose one kind with \
         placement.nodeSelector",
        said(first),
        said(second)
    )
}

/// Longest part of a path, and most allowed folders, that a message repeats.
const LONGEST_PATH: usize = 80;
const MOST_FOLDERS: usize = 2;

fn not_allowed(at: &str, path: &str, allowed: &AllowedHostPaths) -> String {
    let quoted: String = path.chars().take(LONGEST_PATH).collect();
    let quoted = if quoted.len() < path.len() { format!("{quoted:?}...") } else { format!("{quoted:?}") };
    let folders = allowed.folders();
    let named: Vec<String> = folders
        .iter()
        .take(MOST_FOLDERS)
        .map(|folder| folder.to_string().chars().take(LONGEST_PATH / 2).collect())
        .collect();
    let (which, remedy) = match folders.len() {
        0 => ("allows no folder of nodes".to_owned(), String::new()),
        count if count > MOST_FOLDERS => {
            (format!("allows {} and {} more", named.join(", "), count - MOST_FOLDERS), "name one below, ".to_owned())
        }
        _ => (format!("allows only {}", named.join(" and ")), "name one below, ".to_owned()),
    };
    format!(
        "{at} is {quoted} and the operator {which}: {remedy}use a claim or an image, or have it added \
         to allowedHostPaths of the chart"
    )
}
