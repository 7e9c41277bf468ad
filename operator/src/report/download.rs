//! What is told of the download of the model. Pure.

use plan::wire::{DownloadDocument, DownloadPhase};

use crate::api::MoEDeployment;
use crate::api::status::{DownloadStatus, MoEDeploymentStatus, ModelStatus};
use crate::observed::Observed;
use crate::revision::Revisions;

/// How far a download is as a status shows it, and what keeps it: whole percent, so that it is written a hundred times at most.
#[must_use]
pub fn shown_download(document: &DownloadDocument) -> (String, Option<&str>) {
    let percent = |total: u64| u128::from(document.bytes.min(total)) * 100 / u128::from(total.max(1));
    let progress = match (document.phase.known(), document.total_bytes) {
        (Some(DownloadPhase::Downloading | DownloadPhase::Complete), Some(total)) => format!("{}%", percent(total)),
        (Some(DownloadPhase::Waiting), _) => "waiting".to_owned(),
        _ => "listing".to_owned(),
    };
    (progress, document.trouble.as_deref())
}

/// Of all downloads the one that is least far, but for those that wait for another.
pub(super) fn status(observed: &Observed) -> Option<DownloadStatus> {
    let members = observed.members.values().filter(|member| member.downloads);
    let views = members.filter_map(|member| Some((member, &observed.downloads.get(&member.uid)?.document)));
    let (member, document) = views.min_by_key(|(member, document)| {
        let left = document.total_bytes.map_or(u64::MAX, |total| total.saturating_sub(document.bytes));
        (document.phase == DownloadPhase::Waiting, u64::MAX - left, &member.name)
    })?;
    let (progress, trouble) = shown_download(document);
    Some(DownloadStatus {
        pod: member.name.clone(),
        progress,
        total_bytes: document.total_bytes.and_then(|total| i64::try_from(total).ok()),
        trouble: trouble.map(str::to_owned),
    })
}

/// The commit that was downloaded first of what is asked for: every pod that is made later is told to read it.
pub(super) fn model(
    deployment: &MoEDeployment,
    previous: &MoEDeploymentStatus,
    observed: &Observed,
    revisions: Option<&Revisions>,
) -> Option<ModelStatus> {
    let hub = deployment.spec.model.source.hugging_face.as_ref()?;
    let is_asked = |model: &&ModelStatus| model.repo == hub.repo && model.revision == hub.revision;
    if let Some(pinned) = previous.model.as_ref().filter(is_asked) {
        return Some(pinned.clone());
    }
    let of = |commit: &String| ModelStatus {
        repo: hub.repo.clone(),
        revision: hub.revision.clone(),
        commit: commit.clone(),
    };
    // Pods of an older specification have read something else.
    let mut members = observed.members.values().filter(|member| revisions.is_some_and(|own| own.include(member)));
    members.find_map(|member| member.commit.as_ref()).map(of)
}
