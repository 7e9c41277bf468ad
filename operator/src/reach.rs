//! Whether nodes can be reached, judged by all of them together and by this process's own clock. Pure; the caller keeps what was
//! seen before.
//!
//! One signal alone, that the cluster calls a node not ready, is no reason to remove pods: it says the same when the way of the
//! kubelets to the API server is cut, while everything serves. So most nodes at once are an outage of the control plane, as
//! Kubernetes itself has it, and are given time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use crate::nodes;

/// How long nodes that came back have to stay before what the cluster says of the others is believed: they come back one after
/// the other.
pub const STEADY_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// How long a node is given while most are out of reach: as long as Kubernetes gives pods that tolerate nothing else.
pub const GIVEN_IN_OUTAGE: SignedDuration = SignedDuration::from_secs(300);
/// Share of nodes, of a hundred, and number of them from which on most are out of reach: the share is Kubernetes' own for a zone.
const MOST: usize = 55;
const FEWEST: usize = 2;

/// Since when a node is seen as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Identity of the node.
    pub uid: String,
    /// Whether its kubelet reports.
    pub is_ready: bool,
    /// Since when, by this process's clock; before this process looked, as the cluster says.
    pub since: Timestamp,
}

/// What is seen of all nodes now, after what was seen of them before. The cluster's clock is asked once for each node, where
/// this process did not see it turn: a clock that goes wrong makes nothing late, and nothing early.
#[must_use]
pub fn look<'a>(
    before: &BTreeMap<String, Sighting>,
    nodes: impl IntoIterator<Item = &'a Node>,
    now: Timestamp,
) -> BTreeMap<String, Sighting> {
    let see = |node: &Node| {
        let (uid, is_ready) = (node.uid().unwrap_or_default(), nodes::is_ready(node));
        match before.get(&node.name_any()).filter(|before| before.uid == uid) {
            Some(before) if before.is_ready == is_ready => before.clone(),
            Some(_) => Sighting { uid, is_ready, since: now },
            None => Sighting { uid, is_ready, since: nodes::turned(node, now) },
        }
    };
    nodes.into_iter().map(|node| (node.name_any(), see(node))).collect()
}

/// That so many nodes are out of reach that the reason is not with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Of all nodes, or they have just come back: nothing is removed, and nothing could be put anywhere else.
    All,
    /// Of most.
    Most,
}

/// How patient to be with nodes that are out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Why to be more patient than usual, if so.
    pub outage: Option<Outage>,
    /// When that may have changed without anything happening.
    pub until: Option<Timestamp>,
    usual: SignedDuration,
}

impl Patience {
    /// Of a cluster whose nodes are seen like this. `usual` is for nodes that are out of reach while most are not.
    #[must_use]
    pub fn new(sightings: &BTreeMap<String, Sighting>, usual: SignedDuration, now: Timestamp) -> Self {
        let back = |seen: &&Sighting| seen.is_ready && seen.since + STEADY_AFTER > now;
        let (all, away) = (sightings.len(), sightings.values().filter(|seen| !seen.is_ready).count());
        let out = away + sightings.values().filter(back).count();
        // Of nodes that are all there nothing is lost, however new they are.
        let outage = match (away, out) {
            (0, _) => None,
            (_, out) if out == all => Some(Outage::All),
            (_, out) if out >= FEWEST && out * 100 >= all * MOST => Some(Outage::Most),
            _ => None,
        };
        let until = sightings.values().filter(back).map(|seen| seen.since + STEADY_AFTER).min();
        Self { outage, until: until.filter(|_| outage.is_some()), usual }
    }

    /// How a node is reached that is seen like this; `None` is a node that does not exist.
    #[must_use]
    pub fn reach(&self, seen: Option<&Sighting>, now: Timestamp) -> Reach {
        let Some(seen) = seen else { return Reach::Lost };
        if seen.is_ready {
            return Reach::Ready;
        }
        let given = match self.outage {
            None => self.usual,
            Some(Outage::Most) => self.usual.max(GIVEN_IN_OUTAGE),
            Some(Outage::All) => return Reach::Doubtful(self.until),
        };
        let lost = seen.since + given;
        if lost <= now { Reach::Lost } else { Reach::Doubtful(Some(lost)) }
    }
}

/// Whether a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its kubelet reports.
    Ready,
    /// Out of reach, and not yet lost; when to look again, if not only at a change.
    Doubtful(Option<Timestamp>),
    /// Out of reach for too long, or removed from the cluster.
    Lost,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USUAL: SignedDuration = SignedDuration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn node(name: usize, is_ready: bool, since: i64) -> Node {
        let ready = json!({
            "type": "Ready", "status": if is_ready { "True" } else { "Unknown" }, "lastTransitionTime": at(since).to_string(),
        });
        let name = format!("node-{name}");
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "status": {"conditions": [ready]}}))
            .unwrap()
    }

    /// So many of these nodes are lost when they are out of reach from second 0 on.
    fn lost(out: usize, all: usize, seconds: i64) -> usize {
        let nodes =
            |is_out: bool| (0..all).map(move |name| node(name, !is_out || name >= out, -10_000)).collect::<Vec<_>>();
        let before = look(&BTreeMap::new(), &nodes(false), at(-1));
        let first = look(&before, &nodes(true), at(0));
        let seen = look(&first, &nodes(true), at(seconds));
        let patience = Patience::new(&seen, USUAL, at(seconds));
        seen.values().filter(|seen| patience.reach(Some(seen), at(seconds)) == Reach::Lost).count()
    }

    #[test]
    fn some_nodes_are_lost_soon_most_late_and_all_never() {
        for (out, all, soon, late) in [
            (1, 3, 1, 1),
            (1, 2, 1, 1),
            (5, 10, 5, 5),
            (2, 3, 0, 2),
            (6, 10, 0, 6),
            (9, 10, 0, 9),
            (1, 1, 0, 0),
            (3, 3, 0, 0),
        ] {
            assert_eq!(lost(out, all, 9), 0, "{out} of {all}");
            assert_eq!(lost(out, all, 10), soon, "{out} of {all}");
            assert_eq!((lost(out, all, 299), lost(out, all, 300)), (soon, late), "{out} of {all}");
        }
    }

    #[test]
    fn nodes_that_come_back_one_after_the_other_take_none_of_the_others_with_them() {
        let states = |back: usize| (0..3).map(|name| node(name, name < back, -10_000)).collect::<Vec<_>>();
        let mut seen = look(&BTreeMap::new(), &states(3), at(-1));
        seen = look(&seen, &states(0), at(0));
        for (back, second) in [(0, 600), (1, 601), (1, 630), (2, 640), (2, 660)] {
            seen = look(&seen, &states(back), at(second));
            let patience = Patience::new(&seen, USUAL, at(second));
            let third = patience.reach(seen.get("node-2"), at(second));
            assert!(matches!(third, Reach::Doubtful(_)), "{third:?} at {second}");
        }
        // What does not come back with the others is lost.
        seen = look(&seen, &states(2), at(701));
        assert_eq!(Patience::new(&seen, USUAL, at(701)).reach(seen.get("node-2"), at(701)), Reach::Lost);
    }

    #[test]
    fn a_clock_that_goes_wrong_loses_no_node_early_and_none_late() {
        for skew in [-90, 90] {
            let healthy = [node(0, true, -10_000), node(1, true, -10_000)];
            let seen = look(&BTreeMap::new(), &healthy, at(-5));
            let out = [node(0, false, skew), node(1, true, -10_000)];
            let seen = look(&seen, &out, at(0));
            let reach = |second| Patience::new(&seen, USUAL, at(second)).reach(seen.get("node-0"), at(second));
            assert_eq!((reach(9), reach(10)), (Reach::Doubtful(Some(at(10))), Reach::Lost), "{skew}");
        }
    }

    #[test]
    fn a_node_of_the_same_name_is_another_node_and_one_that_is_gone_is_lost() {
        let seen = look(&BTreeMap::new(), &[node(0, false, -100), node(1, true, -10_000)], at(0));
        let mut again = node(0, true, -1);
        again.metadata.uid = Some("another".to_owned());
        let seen = look(&seen, &[again, node(1, true, -10_000)], at(0));
        assert_eq!(seen["node-0"].since, at(-1));
        assert_eq!(Patience::new(&seen, USUAL, at(0)).reach(None, at(0)), Reach::Lost);
    }
}
