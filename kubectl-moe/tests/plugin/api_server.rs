//! An API server as far as the plugin asks one: deployments, no Secret, and one coordinator behind the pod proxy. It keeps
//! what it was asked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use plan::load::ExpertLoad;
use plan::map::{ExpertMap, MapShape};
use plan::wire::{LoadDocument, MapDocument, ModelIdentity};
use serde_json::{Value, json};

/// What was asked: the first line of a request, and its headers in lower case.
#[derive(Clone, Debug)]
pub struct Call {
    pub line: String,
    headers: Vec<String>,
}

impl Call {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let start = format!("{name}: ");
        self.headers.iter().filter_map(|header| header.strip_prefix(&start)).collect()
    }
}

/// A server that ends with the test.
pub struct ApiServer {
    pub url: String,
    asked: Arc<Mutex<Vec<Call>>>,
}

impl ApiServer {
    /// With deployments of these names in the namespace `default`.
    pub fn start(names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Call>>>::default();
        let (log, names) = (Arc::clone(&asked), names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, names) = (Arc::clone(&log), names.clone());
                thread::spawn(move || serve(&stream, &log, &names));
            }
        });
        Self { url, asked }
    }

    pub fn asked(&self) -> Vec<Call> {
        self.asked.lock().unwrap().clone()
    }
}

fn without_query(line: &str) -> &str {
    line.split('?').next().unwrap_or_default()
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Call>>, names: &[String]) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(line) = lines.next() else { return };
    let headers = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>();
    let lowered =
        |header: &String| header.split_once(':').map(|(name, value)| format!("{}:{value}", name.to_lowercase()));
    log.lock().unwrap().push(Call { line: line.clone(), headers: headers.iter().filter_map(lowered).collect() });
    let path = line.split(' ').nth(1).unwrap_or_default();
    let mut stream = stream;
    if path.contains("watch=") {
        // The first deployment changes, and then nothing does.
        let event = json!({"type": "MODIFIED", "object": deployment(&names[0], "0.97")});
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        let _ = writeln!(stream, "{head}{event}");
        let _ = stream.flush();
        // Until whoever watches goes.
        let _ = BufReader::new(stream).lines().next();
        return;
    }
    let earlier =
        log.lock().unwrap().iter().filter(|asked| without_query(&asked.line) == without_query(&line)).count() - 1;
    let (status, body) = answer(path, names, earlier);
    let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let _ = write!(stream, "{head}connection: close\r\n\r\n{body}");
}

/// What is said to who has asked the same as often before; a deployment of the name `moving` changes.
fn answer(path: &str, names: &[String], earlier: usize) -> (u16, String) {
    let turn = if path.contains("/moving-0-coordinator:") { earlier } else { 0 };
    let path = path.split('?').next().unwrap_or_default();
    let object = path.rsplit('/').next().unwrap_or_default();
    let list = |kind: &str, items: Vec<Value>| {
        let whole = json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        (200, whole.to_string())
    };
    match () {
        () if path.contains("/proxy/admin/v1/map") => (200, serde_json::to_string(&map(turn)).unwrap()),
        () if path.contains("/proxy/admin/v1/load") => (200, serde_json::to_string(&load(turn)).unwrap()),
        () if path.contains("/admin/v1/monitor") => (200, monitor(earlier)),
        () if path.contains("/proxy/admin/v1/rebalance") => (202, "{}".to_owned()),
        () if path.contains("/proxy/") => (503, json!({"error": {"message": "not yet"}}).to_string()),
        () if path.contains("/namespaces/slow/") => {
            // It ends with the test.
            thread::park();
            unreachable!("nobody wakes it")
        }
        () if path.contains("/namespaces/empty/") => list("MoEDeployment", Vec::new()),
        () if object == "moedeployments" => {
            list("MoEDeployment", names.iter().map(|name| deployment(name, "0.91")).collect())
        }
        () if names.iter().any(|name| name == object) => (200, deployment(object, "0.91").to_string()),
        () if object == "deployments" => {
            let labels = json!({"helm.sh/chart": "swiftbalancer-0.1.0"});
            let pod = json!({"containers": [{"name": "operator", "image": "r:5000/operator:0.1.1"}]});
            let operator = json!({
                "metadata": {"name": "swiftbalancer", "namespace": "system", "labels": labels},
                "spec": {"selector": {}, "template": {"spec": pod}},
            });
            list("Deployment", vec![operator])
        }
        () if object == "pods" => {
            let pod = json!({"containers": [{"name": "coordinator", "image": "r:5000/runtime:0.1.2"}]});
            list(
                "Pod",
                vec![json!({"metadata": {"name": "tiny-moe-0-coordinator", "namespace": "default"}, "spec": pod})],
            )
        }
        () => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": format!("{object} not found"),
            });
            (404, status.to_string())
        }
    }
}

fn deployment(name: &str, ratio: &str) -> Value {
    let mut object: Value = serde_saphyr::from_str(include_str!("../../../examples/tiny-moe.yaml")).unwrap();
    object["metadata"] = json!({"name": name, "namespace": "default", "uid": name, "resourceVersion": "2"});
    object["status"] = json!({
        "ratio": ratio, "epoch": 3, "readyReplicas": 1, "expertParallelSize": 2, "slotsPerRank": 2,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "AllReplicasReady", "message": "1 of 1 replicas serve",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    object
}

fn model() -> ModelIdentity {
    ModelIdentity { name: "tiny".to_owned(), digest: "d1".to_owned(), layers: 1, experts: 3 }
}

fn map(turn: usize) -> MapDocument {
    let shape = MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 };
    let mut slots = ExpertMap::contiguous(shape).unwrap().slots().to_vec();
    slots.rotate_left(turn % 2 * 2);
    MapDocument::new(model(), &ExpertMap::new(shape, slots).unwrap())
}

/// A second later each time, and with something new in every answer.
fn monitor(turn: usize) -> String {
    let mut document: Value =
        serde_json::from_str(include_str!("../../../plan/tests/documents/0.1.0/monitor.json")).unwrap();
    document["seconds"] = json!(753.25 + turn as f64);
    if turn > 0 {
        let what = json!({"kind": "window", "number": turn, "steps": 400, "ratio": 0.5});
        document["events"] = json!([{"number": 16 + turn, "seconds": 753.25 + turn as f64, "what": what}]);
    }
    document.to_string()
}

fn load(turn: usize) -> LoadDocument {
    LoadDocument::new(model(), 4 + turn as u64, 400, &ExpertLoad::from_rows(&[vec![5, 1, 2]]).unwrap())
}
