//! What downloads of checkpoints say: pods in which one runs are asked at the pace of coordinators, and a pass follows only when what
//! a status shows of it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use plan::wire::DownloadDocument;

use super::{CONCURRENCY, Coordinators, address, controlled};
use crate::context::Guarded;
use crate::observed::DownloadView;
use crate::pods::Member;
use crate::report::shown_download;
use crate::runtime_client::RuntimeClient;
use crate::words;

/// What downloads said last, by the identity of their pods.
#[derive(Clone, Debug, Default)]
pub struct Downloads(Arc<Mutex<BTreeMap<String, DownloadView>>>);

impl Downloads {
    /// Those of some pods.
    pub fn of<'a>(&self, pods: impl Iterator<Item = &'a str>) -> BTreeMap<String, DownloadView> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.filter_map(|uid| Some((uid.to_owned(), heard.get(uid)?.clone()))).collect()
    }

    fn keep(&self, is_kept: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_kept(uid));
    }

    /// Takes what a pod says; whether a status shows it otherwise.
    fn take(&self, uid: &str, document: DownloadDocument, now: Timestamp) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = heard.get(uid);
        let has_more = before.is_some_and(|before| document.bytes > before.document.bytes);
        let advanced = if has_more { Some(now) } else { before.and_then(|before| before.advanced) };
        let is_news = before.is_none_or(|before| {
            shown_download(&before.document) != shown_download(&document) || before.advanced.is_none() && has_more
        });
        heard.insert(uid.to_owned(), DownloadView { document, advanced });
        is_news
    }
}

/// Asks every download once.
pub(super) async fn ask(
    pods: &Coordinators,
    client: &dyn RuntimeClient,
    downloads: &Downloads,
    changed: &UnboundedSender<ObjectRef<Guarded>>,
) {
    let deployment = |namespace: &str, name: &str| {
        pods.deployments.get(&ObjectRef::new(name).within(namespace)).and_then(|found| found.uid())
    };
    let downloading = |pod: &Arc<Pod>| {
        let member = Member::read(pod).filter(|member| member.downloads && member.address.is_some())?;
        controlled(pod, &member, &deployment)?;
        Some((pod.namespace()?, member))
    };
    let found: Vec<(String, Member)> = pods.pods.state().iter().filter_map(downloading).collect();
    downloads.keep(|uid| found.iter().any(|(_, member)| member.uid == uid));
    let ask = |(namespace, member): (String, Member)| async move {
        // One that has just begun does not listen yet, and one that ends no more.
        let Ok(mut document) = client.download(&address(&member)).await else { return };
        document.trouble = document.trouble.map(|trouble| words::shorten(&trouble));
        if downloads.take(&member.uid, document, Timestamp::now()) {
            // A closed channel means that the operator stops.
            let _ = changed.unbounded_send(ObjectRef::new(&member.deployment).within(&namespace));
        }
    };
    futures::stream::iter(found).for_each_concurrent(CONCURRENCY, ask).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bytes: u64, trouble: Option<&str>) -> DownloadDocument {
        let json = serde_json::json!({
            "version": plan::wire::VERSION, "phase": "downloading", "bytes": bytes, "totalBytes": 1000, "trouble": trouble,
        });
        DownloadDocument::from_json(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_a_status_shows_alike_is_no_news() {
        let downloads = Downloads::default();
        let now = Timestamp::UNIX_EPOCH;
        assert!(downloads.take("u", document(100, None), now));
        assert!(downloads.take("u", document(101, None), now), "it goes on, whatever failed before");
        assert!(!downloads.take("u", document(109, None), now));
        assert!(downloads.take("u", document(110, None), now));
        assert!(downloads.take("u", document(110, Some("no")), now));
        assert!(!downloads.take("u", document(110, Some("no")), now));
        downloads.keep(|_| false);
        assert!(downloads.of(["u"].into_iter()).is_empty());
    }
}
