//! The page at the admin port: how it is served, what it may do, and its script run on what the endpoint answers, in a browser of
//! which the tests play the part.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use plan::wire::MonitorDocument;
use rquickjs::{Context, Runtime};
use serde_json::{Value, json};

use crate::coordinator::fake::Fake;
use crate::server::fixture::{Answer, Server, send};

const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/monitor.css");
const SCRIPT: &str = include_str!("../page/monitor.js");
const BROWSER: &str = include_str!("page/browser.js");
const RELEASED: &str = include_str!("../../../../plan/tests/documents/0.1.0/monitor.json");

async fn get(server: &Server, path: &str) -> Answer {
    send(server.admin(), Request::get(path).header("host", "localhost:8001").body(Body::empty()).unwrap()).await
}

/// What follows each `start` up to a quote.
fn quoted<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.split(start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[tokio::test]
async fn it_is_served_to_everybody_with_what_a_browser_is_to_keep_to() {
    let server = Server::start(Fake::default());
    let mut paths = vec!["/".to_owned()];
    paths.extend([quoted(PAGE, "href=\""), quoted(PAGE, "src=\"")].concat().iter().map(|name| format!("/{name}")));
    assert_eq!(paths, ["/", "/monitor.css", "/monitor.js"]);
    for path in paths {
        // No Host of this machine, and no token: it holds nothing that anybody may not see.
        let answer = send(server.admin(), Request::get(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let policy = header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "form-action 'none'"] {
            assert!(policy.split("; ").any(|found| found == part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"), "{policy}");
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"));
        assert_eq!(header("referrer-policy").as_deref(), Some("no-referrer"));
        assert_eq!(header("x-frame-options").as_deref(), Some("DENY"));
        assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    }
    let monitor = get(&server, "/admin/v1/monitor").await;
    assert_eq!(monitor.headers.get("cache-control").unwrap(), "no-store");
}

/// The policy would stop all of this in a browser, where nobody would see why.
#[test]
fn it_takes_nothing_from_elsewhere_and_has_no_script_or_style_in_its_markup() {
    for text in [PAGE, STYLE, SCRIPT] {
        for never in ["http:", "https:", "//cdn", "@import", "url(", "data:", "innerHTML", "eval(", "localStorage"] {
            assert!(!text.contains(never), "{never}");
        }
    }
    for never in ["style=", " on", "<style", "javascript:"] {
        let markup = PAGE.lines().filter(|line| line.trim_start().starts_with('<'));
        assert!(
            !markup.flat_map(|line| line.split('>')).any(|tag| tag.contains('<') && tag.contains(never)),
            "{never}"
        );
    }
    assert_eq!(PAGE.matches("<script").count(), 1);
    assert!(PAGE.contains("<script src=\"monitor.js\" defer></script>"));
    // A field with a name would be sent along where the script does not run.
    assert!(!PAGE.contains("name=\"token\"") && PAGE.contains("type=\"password\""));
}

/// The page's script, in a browser of which the tests play the part.
struct Browser {
    context: Context,
    _runtime: Runtime,
}

impl Browser {
    /// Where the page is opened, and the endpoint gives these answers in turn.
    fn open(answers: &[(u16, &str)]) -> Self {
        let runtime = Runtime::new().unwrap();
        let context = Context::full(&runtime).unwrap();
        let browser = Self { context, _runtime: runtime };
        let ids: BTreeSet<&str> = quoted(PAGE, " id=\"").into_iter().collect();
        let properties: BTreeSet<String> =
            STYLE.split("--").skip(1).filter_map(|rest| Some(format!("--{}", rest.split_once(':')?.0))).collect();
        browser.run(&format!("globalThis.ids = {}; globalThis.properties = {};", json!(ids), json!(properties)));
        browser.run(BROWSER);
        for answer in answers {
            browser.answer(answer);
        }
        browser.run(SCRIPT);
        browser.settle();
        browser
    }

    fn answer(&self, (status, text): &(u16, &str)) {
        self.run(&format!("answer({status}, {})", json!(text)));
    }

    /// The time of the next question has come.
    fn go_on(&self, answer: (u16, &str)) {
        self.answer(&answer);
        self.run("go_on()");
        self.settle();
    }

    fn enter(&self, token: &str, answer: (u16, &str)) {
        self.answer(&answer);
        self.run(&format!("enter({})", json!(token)));
        self.settle();
    }

    fn shown(&self, id: &str) -> Value {
        serde_json::from_str(&self.text(&format!("shown({})", json!(id)))).unwrap()
    }

    fn told(&self, id: &str) -> String {
        self.shown(id)["text"].as_str().unwrap().to_owned()
    }

    fn run(&self, script: &str) {
        self.text(&format!("{script}\n;''"));
    }

    fn text(&self, script: &str) -> String {
        self.context.with(|context| {
            let result = context.eval::<rquickjs::Coerced<String>, _>(script);
            result.map_or_else(|error| panic!("{error}: {:?}", context.catch()), |text| text.0)
        })
    }

    /// Until nothing waits.
    fn settle(&self) {
        while self.context.with(|context| context.execute_pending_job()) {}
    }
}

/// The same some seconds later, when rank 1 has computed as much again and the others half of that.
fn later(document: &str) -> String {
    let mut document: MonitorDocument = serde_json::from_str(document).unwrap();
    document.seconds += 2.0;
    document.completion_tokens += 1000;
    for layer in &mut document.pairs {
        layer.iter_mut().enumerate().for_each(|(rank, pairs)| *pairs += if rank == 1 { 200 } else { 100 });
    }
    document.events.clear();
    serde_json::to_string(&document).unwrap()
}

#[test]
fn its_script_shows_all_that_a_document_tells() {
    let browser = Browser::open(&[(200, RELEASED)]);
    let state = browser.shown("state");
    assert_eq!(
        (&state["text"], &state["class"]),
        (&json!("serving, group 2, epoch 6, collecting"), &json!("")),
        "{state}"
    );
    browser.go_on((200, &later(RELEASED)));
    assert_eq!(browser.told("state"), "serving, group 2, epoch 6, collecting");
    assert_eq!(browser.told("model"), "tiny-moe");
    // 4 ranks have 500 together, of which one has 200.
    assert_eq!((browser.told("ratio"), browser.told("busiest")), ("0.625".to_owned(), "1.60x".to_owned()));
    assert_eq!(browser.told("busiest-rank"), "rank 1, the busiest, by the mean");
    assert_eq!(browser.told("tokens"), "500");
    assert_eq!((browser.told("first-p99"), browser.told("inter-p50")), ("250 ms".to_owned(), "15.6 ms".to_owned()));
    assert_eq!(browser.told("step-p50"), "-");
    let rows = |id: &str| browser.shown(id)["rows"].as_array().unwrap().clone();
    assert_eq!(rows("decision").len(), 4);
    let events = rows("events");
    assert_eq!(events.len(), 10);
    assert_eq!(events[0], "0:00:25 the group was lost: rank 1 was lost: connection reset");
    assert!(events.contains(&json!("0:00:21 layer 1: expert 3 from rank 0 to 2, 1.05 MB (epoch 6)")), "{events:?}");
    browser.run("point(300, 20)");
    assert_eq!(browser.told("cell"), "layer 0, rank 1: 1.60 x the mean");
    let drawn: usize = browser.text("all_drawn()").parse().unwrap();
    assert!(drawn > 100, "{drawn}");
    assert_eq!(
        browser.text("all_asked()"),
        r#"[["admin/v1/monitor?after=0",null],["admin/v1/monitor?after=16",null]]"#
    );
}

#[tokio::test]
async fn its_script_reads_what_the_endpoint_answers() {
    let server = Server::start(Fake::default());
    let mut before = None;
    for _ in 0..2 {
        server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 4, "ignore_eos": true})).await;
        let now = get(&server, "/admin/v1/monitor").await.text();
        if let Some(before) = before.replace(now.clone()) {
            let browser = Browser::open(&[(200, &before)]);
            browser.go_on((200, &now));
            assert_eq!(browser.told("state"), "serving, group 1, epoch 0, off");
            assert_ne!(browser.told("ratio"), "-");
        }
    }
}

#[test]
fn it_asks_for_the_token_and_sends_it_in_a_header_alone() {
    let browser = Browser::open(&[(401, "{}")]);
    assert_eq!(browser.shown("ask")["hidden"], false);
    assert_eq!(browser.told("state"), "it asks for a token");
    browser.enter("wrong", (401, "{}"));
    assert_eq!(browser.told("state"), "this is not its token");
    browser.enter(" right ", (200, RELEASED));
    assert_eq!((&browser.shown("ask")["hidden"], &browser.shown("view")["hidden"]), (&json!(true), &json!(false)));
    let asked: Value = serde_json::from_str(&browser.text("all_asked()")).unwrap();
    let path = "admin/v1/monitor?after=0";
    assert_eq!(asked, json!([[path, null], [path, "wrong"], [path, "right"]]));
    assert!(!browser.shown("token").to_string().contains("right"));
}

#[test]
fn what_does_not_answer_is_told_and_asked_again_and_another_process_begins_anew() {
    let browser = Browser::open(&[(503, r#"{"error": {"message": "too many"}}"#)]);
    assert_eq!(browser.told("state"), "no answer, trying again: too many");
    browser.go_on((200, RELEASED));
    assert_eq!(browser.told("state"), "serving, group 2, epoch 6, collecting");
    let mut other: MonitorDocument = serde_json::from_str(RELEASED).unwrap();
    (other.seconds, other.ready, other.reason) = (1.0, false, Some("<b>the ranks are loading".to_owned()));
    other.events.truncate(1);
    browser.go_on((200, &serde_json::to_string(&other).unwrap()));
    assert_eq!(browser.told("state"), "not serving: <b>the ranks are loading");
    assert_eq!(browser.told("ratio"), "-");
}
