//! An API server in memory, as far as the operator uses one: get, list, watch, create, apply, patch, delete, status, garbage
//! collection. It keeps a log of every call, so that a test can ask what was written and with which rights.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};

use axum::body::Body as Answer;
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// One call: verb, resource with subresource, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub verb: &'static str,
    pub resource: String,
    pub name: String,
}

impl Call {
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }
}

#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
}

type Key = (String, String, String);

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    /// What was applied last: what is not applied again goes.
    applied: BTreeMap<Key, Value>,
    calls: Vec<Call>,
    ending: bool,
    refusals: Vec<Refusal>,
    refused: usize,
    hanging: Option<(&'static str, &'static str)>,
    hidden: Option<String>,
}

/// What is refused, until it is forgiven. A `#` of the message is a number that is another each time.
#[derive(Clone)]
pub struct Refusal {
    pub verb: &'static str,
    pub resource: &'static str,
    pub code: u16,
    pub message: &'static str,
}

/// A change of an object: what it was and what it is.
struct Change {
    revision: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

/// Where a request goes.
struct Target {
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
}

impl Target {
    fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // api/VERSION/... or apis/GROUP/VERSION/...
        let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        Self { resource: part(0), namespace: namespace.to_owned(), name: part(1), subresource: part(2) }
    }
}

impl FakeApi {
    pub fn new() -> Self {
        Self { state: Arc::default(), revision: watch::Sender::new(0) }
    }

    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    pub fn writes(&self) -> usize {
        self.calls().iter().filter(|call| call.is_write()).count()
    }

    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let namespace = if resource == "nodes" { "" } else { "default" };
        self.state.lock().unwrap().objects.get(&key(resource, namespace, name)).cloned()
    }

    pub fn names(&self, resource: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.objects.keys().filter(|key| key.0 == resource).map(|key| key.2.clone()).collect()
    }

    /// Stores an object as a user or a kubelet would: not in the log.
    pub fn put(&self, resource: &str, mut object: Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.change(|state| {
            let key = key(resource, &namespace, &name);
            let spec = state.objects.get(&key).map(|before| before["spec"].clone());
            if resource == "moedeployments" && spec.as_ref() != Some(&object["spec"]) {
                let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                object["metadata"]["generation"] = json!(generation);
            }
            state.store(key, object);
        });
    }

    /// Changes an object in place.
    pub fn edit(&self, resource: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(resource, name).unwrap();
        edit(&mut object);
        self.put(resource, object);
    }

    /// Deletes an object and, as the garbage collector does, what only it owned.
    pub fn delete(&self, resource: &str, name: &str) {
        self.change(|state| state.remove(&key(resource, "default", name)));
    }

    /// Refuses calls like an admission plugin, a quota or a server that is overloaded; none any more if there are none.
    pub fn refuse(&self, refusals: &[Refusal]) {
        self.change(|state| state.refusals = refusals.to_vec());
    }

    /// Never answers such calls.
    pub fn hang(&self, verb: &'static str, resource: &'static str) {
        self.change(|state| state.hanging = Some((verb, resource)));
    }

    /// Keeps an object out of lists and watches, as one that a cache does not have yet.
    pub fn hide_from_watches(&self, name: &str) {
        self.change(|state| state.hidden = Some(name.to_owned()));
    }

    /// Calls of this verb and resource.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.calls().iter().filter(|call| call.verb == verb && call.resource == resource).count()
    }

    /// Lets the namespace end: nothing can be created in it any more, and what it has goes one after the other.
    pub fn end_namespace(&self) {
        self.change(|state| state.ending = true);
    }

    /// Waits until `condition` is true of this server.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.revision.subscribe();
        let found = async {
            while !condition(self) {
                changes.changed().await.unwrap();
            }
        };
        // Virtual time: it passes only when nobody has anything to do.
        let outcome = tokio::time::timeout(std::time::Duration::from_hours(1), found).await;
        assert!(outcome.is_ok(), "{what}: {:#?}", self.calls().iter().rev().take(20).collect::<Vec<_>>());
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let result = change(&mut state);
        let revision = state.revision;
        drop(state);
        self.revision.send_replace(revision);
        result
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let target = Target::parse(head.uri.path());
        let query: BTreeMap<String, String> = parse_query(head.uri.query().unwrap_or_default());
        let watching = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match (&head.method, target.name.is_empty()) {
            (&Method::GET, true) if watching => "watch",
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, _) => "create",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, _) => "delete",
            (method, _) => panic!("{method} is not expected"),
        };
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let resource = match target.subresource.as_str() {
            "" => target.resource.clone(),
            subresource => format!("{}/{subresource}", target.resource),
        };
        let name = if verb == "create" { text(&body["metadata"]["name"]) } else { target.name.clone() };
        let hangs = self.state.lock().unwrap().hanging == Some((verb, resource.as_str()));
        if hangs {
            std::future::pending::<()>().await;
        }
        let refusal = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(Call { verb, resource: resource.clone(), name });
            state.refused += 1;
            let refused = state.refused;
            let of_call = |refusal: &&Refusal| refusal.verb == verb && refusal.resource == resource;
            state
                .refusals
                .iter()
                .find(of_call)
                .map(|refusal| (refusal.code, refusal.message.replace('#', &refused.to_string())))
        };
        if let Some((code, message)) = refusal {
            return refuse(code, &message);
        }
        match verb {
            "watch" => self.watch(&target, &query),
            "list" => reply(200, &self.list(&target, &query)),
            "get" => match self.get(&target.resource, &target.name) {
                Some(object) => reply(200, &object),
                None => refuse(404, "NotFound"),
            },
            "create" => self.create(&target, body),
            "patch" => self.patch(&target, head.headers.get("content-type").unwrap().to_str().unwrap(), &body),
            _ => self.remove(&target, &body),
        }
    }

    fn list(&self, target: &Target, query: &BTreeMap<String, String>) -> Value {
        let state = self.state.lock().unwrap();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(key, object)| {
                key.0 == target.resource && state.hidden.as_ref() != Some(&key.2) && selected(object, query)
            })
            .map(|(_, object)| object)
            .collect();
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": state.revision.to_string()},
            "items": items,
        })
    }

    fn watch(&self, target: &Target, query: &BTreeMap<String, String>) -> Response<Answer> {
        let from: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let (api, resource, query) = (self.clone(), target.resource.clone(), query.clone());
        let lines = stream::unfold((from, self.revision.subscribe()), move |(seen, mut changes)| {
            let (api, resource, query) = (api.clone(), resource.clone(), query.clone());
            async move {
                loop {
                    changes.mark_unchanged();
                    let (now, lines) = api.since(seen, &resource, &query);
                    if !lines.is_empty() {
                        return Some((lines, (now, changes)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(Answer::from_stream(lines.map(Ok::<_, Infallible>)))
    }

    fn since(&self, seen: u64, resource: &str, query: &BTreeMap<String, String>) -> (u64, String) {
        let state = self.state.lock().unwrap();
        let is_hidden = |key: &Key| state.hidden.as_ref() == Some(&key.2);
        let is_selected = |object: &&Value| selected(object, query);
        // What no longer has the labels that are asked for is gone for who asks.
        let line = |change: &Change| {
            let (before, after) =
                (change.before.as_ref().filter(is_selected), change.after.as_ref().filter(is_selected));
            let (kind, object) = match (before, after) {
                (None, None) => return None,
                (None, Some(after)) => ("ADDED", after),
                (Some(_), Some(after)) => ("MODIFIED", after),
                (Some(before), None) => ("DELETED", change.after.as_ref().unwrap_or(before)),
            };
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = json!(change.revision.to_string());
            Some(json!({"type": kind, "object": object}).to_string() + "\n")
        };
        let news = state
            .history
            .iter()
            .filter(|change| change.revision > seen && change.key.0 == resource && !is_hidden(&change.key));
        let lines = news.filter_map(line).collect();
        (state.revision, lines)
    }

    fn create(&self, target: &Target, mut object: Value) -> Response<Answer> {
        let name = text(&object["metadata"]["name"]);
        object["metadata"]["namespace"] = json!(target.namespace);
        self.change(|state| {
            if state.ending {
                return refuse_in_ending_namespace();
            }
            let key = key(&target.resource, &target.namespace, &name);
            if state.objects.contains_key(&key) {
                return refuse(409, "AlreadyExists");
            }
            reply(201, &state.store(key, object))
        })
    }

    fn patch(&self, target: &Target, content_type: &str, patch: &Value) -> Response<Answer> {
        self.change(|state| {
            let key = key(&target.resource, &target.namespace, &target.name);
            let before = state.objects.get(&key).cloned();
            let mut object = match &before {
                Some(object) => object.clone(),
                None if state.ending => return refuse_in_ending_namespace(),
                None if content_type.contains("apply") => json!({"metadata": {"namespace": target.namespace}}),
                None => return refuse(404, "NotFound"),
            };
            if target.subresource == "status" {
                object["status"] = patch["status"].clone();
            } else if content_type.contains("strategic") {
                patch_owners(&mut object, patch);
            } else if content_type.contains("merge") {
                let uid = &patch["metadata"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return refuse(409, "Conflict");
                }
                merge(&mut object, patch);
                remove_nulls(&mut object);
            } else {
                if let Some(owned) = state.applied.insert(key.clone(), patch.clone()) {
                    let_go(&mut object, &owned, patch);
                }
                apply(&mut object, patch);
            }
            if before.as_ref() == Some(&object) {
                return reply(200, &object);
            }
            reply(200, &state.store(key, object))
        })
    }

    fn remove(&self, target: &Target, options: &Value) -> Response<Answer> {
        self.change(|state| {
            let key = key(&target.resource, &target.namespace, &target.name);
            let Some(object) = state.objects.get(&key) else { return refuse(404, "NotFound") };
            let expected = &options["preconditions"]["uid"];
            if !expected.is_null() && *expected != object["metadata"]["uid"] {
                return refuse(409, "Conflict");
            }
            state.remove(&key);
            reply(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        })
    }
}

impl State {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.revision.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.revision));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let (revision, before, after) = (self.revision, self.objects.get(&key).cloned(), Some(object.clone()));
        self.history.push(Change { revision, key: key.clone(), before, after });
        self.objects.insert(key, object.clone());
        object
    }

    fn remove(&mut self, key: &Key) {
        let Some(object) = self.objects.remove(key) else { return };
        self.revision += 1;
        let uid = object["metadata"]["uid"].clone();
        self.history.push(Change { revision: self.revision, key: key.clone(), before: Some(object), after: None });
        let owned_by = |object: &Value| object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let dependents: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, object)| owned_by(object).iter().any(|owner| owner["uid"] == uid))
            .map(|(key, _)| key.clone())
            .collect();
        for dependent in dependents {
            let mut object = self.objects[&dependent].clone();
            let others: Vec<Value> = owned_by(&object).into_iter().filter(|owner| owner["uid"] != uid).collect();
            if others.is_empty() {
                self.remove(&dependent);
            } else {
                object["metadata"]["ownerReferences"] = json!(others);
                self.store(dependent, object);
            }
        }
    }
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Sets every field that the patch has; lists are replaced whole.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => object.clone_from(patch),
    }
}

/// Takes away what was applied once and is not applied any more, as server-side apply does of fields that nobody else has.
fn let_go(object: &mut Value, owned: &Value, applied: &Value) {
    let (Value::Object(object), Value::Object(owned)) = (object, owned) else { return };
    for (key, owned) in owned {
        match (object.get_mut(key), applied.get(key)) {
            (Some(object), Some(applied)) => let_go(object, owned, applied),
            (Some(_), None) => drop(object.remove(key)),
            (None, _) => {}
        }
    }
}

/// What a merge patch sets to null is removed.
fn remove_nulls(object: &mut Value) {
    if let Value::Object(fields) = object {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(remove_nulls);
    }
}

/// An apply of one manager: a selector is replaced whole, entries of lists that others have added stay.
fn apply(object: &mut Value, patch: &Value) {
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    merge(object, patch);
    if let (Some(there), Some(wanted)) = (object.pointer_mut("/spec/selector"), patch.pointer("/spec/selector")) {
        there.clone_from(wanted);
    }
    if let Some(wanted) = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
        let others = ports.into_iter().filter(|port| !wanted.iter().any(|wanted| wanted["port"] == port["port"]));
        let others: Vec<Value> = others.collect();
        wanted.extend(others);
    }
}

/// A strategic merge patch of owner references, whose key is `uid`.
fn patch_owners(object: &mut Value, patch: &Value) {
    let mut owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    for change in patch["metadata"]["ownerReferences"].as_array().unwrap() {
        owners.retain(|owner| owner["uid"] != change["uid"]);
        if change["$patch"] != "delete" {
            owners.push(change.clone());
        }
    }
    object["metadata"]["ownerReferences"] = json!(owners);
}

fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let selector = query.get("labelSelector").map(String::as_str).unwrap_or_default();
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (key, value) = term.split_once('=').unwrap();
        object["metadata"]["labels"][key] == value
    })
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",")))
        .collect()
}

fn reply(status: u16, body: &Value) -> Response<Answer> {
    Response::builder().status(status).body(Answer::from(body.to_string())).unwrap()
}

fn refuse(code: u16, reason: &str) -> Response<Answer> {
    reply(
        code,
        &json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": reason,
        }),
    )
}

/// As the admission plugin `NamespaceLifecycle` does.
fn refuse_in_ending_namespace() -> Response<Answer> {
    let cause = json!({"reason": "NamespaceTerminating", "message": "it ends", "field": "metadata.namespace"});
    reply(
        403,
        &json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "unable to create new content because it is being terminated", "details": {"causes": [cause]},
        }),
    )
}

/// Status of a container whose startup probe has succeeded.
pub fn started_container() -> Value {
    json!({
        "name": "runtime", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "started": true,
        "state": {"running": {}},
    })
}

/// Runs pods as kubelets would, until `stop`: every pod gets an address and becomes ready, coordinators when their replica is
/// complete.
pub async fn kubelets(api: FakeApi, ranks: usize) {
    let mut changes = api.revision.subscribe();
    loop {
        for name in api.names("pods") {
            let Some(pod) = api.get("pods", &name) else { continue };
            let labels = &pod["metadata"]["labels"];
            let coordinator = labels["swiftbalancer.io/role"] == "coordinator";
            let group = format!(
                "{}-{}-",
                text(&labels["swiftbalancer.io/deployment"]),
                text(&labels["swiftbalancer.io/group"])
            );
            let complete = api.names("pods").iter().filter(|name| name.starts_with(&group)).count() == ranks + 1;
            let ready = if !coordinator || complete { "True" } else { "False" };
            if pod["status"]["conditions"][0]["status"] != ready {
                api.edit("pods", &name, |pod| {
                    if pod["spec"]["nodeName"].is_null() {
                        pod["spec"]["nodeName"] = json!("node-1");
                    }
                    pod["status"] = json!({
                        "phase": "Running", "podIP": format!("{name}.test"),
                        "conditions": [{"type": "Ready", "status": ready}],
                        "containerStatuses": [started_container()],
                    });
                });
            }
        }
        changes.changed().then(ready).await.unwrap();
    }
}
