//! What whoever knows kubectl expects: options of the cluster, forms of output, watching, completion, versions, standard
//! input. Each command is run as a program.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::api_server::{ApiServer, Call};
use super::{command, printed, run, text};

/// Runs the program against a server.
fn on(server: &ApiServer, line: &str) -> Output {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend(["--server", &server.url]);
    run(&words)
}

fn shown(server: &ApiServer, line: &str) -> String {
    let output = on(server, line);
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn status_without_a_name_lists_every_deployment_in_every_form() {
    let server = ApiServer::start(&["one", "tiny-moe"]);
    let table = shown(&server, "status");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READY", "REASON", "RATIO", "EPOCH", "MAP"]);
    assert_eq!(rows[1], ["one", "True", "AllReplicasReady", "0.91", "3", "-"]);
    assert!(shown(&server, "status -A").starts_with("NAMESPACE   NAME"));
    assert!(shown(&server, "status --all-namespaces -o wide").lines().next().unwrap().ends_with("MODEL"));
    let names = "moedeployment.swiftbalancer.io/one\nmoedeployment.swiftbalancer.io/tiny-moe\n";
    assert_eq!(shown(&server, "status -o name"), names);
    let json = document(&shown(&server, "status -o json"));
    assert_eq!(json["items"][1]["metadata"]["name"], "tiny-moe");
    let yaml: Value = serde_saphyr::from_str(&shown(&server, "status -o yaml")).unwrap();
    assert_eq!(yaml, json);
    let paths: Vec<String> = server.asked().iter().map(|asked| asked.line.clone()).collect();
    assert!(paths[0].contains("/namespaces/default/moedeployments"), "{paths:?}");
    assert!(paths[1].contains("/v1alpha1/moedeployments"), "all namespaces: {paths:?}");
    let none = on(&server, "status -n empty");
    assert!(none.status.success() && none.stdout.is_empty());
    assert_eq!(text(&none.stderr), "kubectl-moe: no MoEDeployment in namespace empty\n");
}

#[test]
fn one_deployment_is_shown_with_what_its_coordinators_say() {
    let server = ApiServer::start(&["tiny-moe"]);
    let table = shown(&server, "status tiny-moe");
    assert!(table.contains("over 2 ranks with 2 slots per layer") && table.contains("not yet"), "{table}");
    let json = document(&shown(&server, "status tiny-moe -o json"));
    assert!(json["coordinators"][0]["error"].as_str().unwrap().contains("not yet"), "{json}");
    assert_eq!(shown(&server, "status tiny-moe -o name"), "moedeployment.swiftbalancer.io/tiny-moe\n");
    let both = on(&server, "status tiny-moe -A");
    assert_eq!(both.status.code(), Some(2), "{}", text(&both.stderr));
    let unknown = on(&server, "status other");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("failed to read MoEDeployment default/other"), "{}", text(&unknown.stderr));
}

#[test]
fn maps_are_printed_in_every_format_and_form() {
    let server = ApiServer::start(&["tiny-moe"]);
    let map = document(&shown(&server, "map tiny-moe"));
    assert_eq!(map["placement"], serde_json::json!([[[0, 1], [2, 0]]]));
    assert_eq!(document(&shown(&server, "map tiny-moe -o json")), map);
    assert_eq!(serde_saphyr::from_str::<Value>(&shown(&server, "map tiny-moe -o yaml")).unwrap(), map);
    assert_eq!(shown(&server, "map tiny-moe --map-format vllm"), "[\n  [0,1,2,0]\n]\n");
    assert_eq!(document(&shown(&server, "map tiny-moe --map-format vllm-ascend"))["moe_layer_count"], 1);
    let trtllm = document(&shown(&server, "map tiny-moe --map-format trtllm --dense-layers 3 -o json"));
    assert_eq!(trtllm["initial_global_assignments"]["3"], serde_json::json!([0, 1, 2, 0]));
    let table = shown(&server, "map tiny-moe -o table");
    assert_eq!(
        table,
        "moedeployment.swiftbalancer.io/tiny-moe, replica 0: valid, swift for tiny\n\
         1 layer of 3 experts on 2 ranks with 2 slots each (redundancy 1), 1 to 2 copies of each expert\n\
         the loss of a rank can take the only copy of an expert away\n"
    );
    assert!(
        shown(&server, "map tiny-moe -o wide")
            .ends_with("LAYER   RANK   EXPERTS\n0       0      0 1\n0       1      2 0\n")
    );
    assert_eq!(shown(&server, "map tiny-moe -o name"), "moedeployment.swiftbalancer.io/tiny-moe\n");
    let none = on(&server, "map tiny-moe --replica 7");
    assert_eq!(
        text(&none.stderr),
        "kubectl-moe: MoEDeployment tiny-moe has 1 replica, so none has the number 7; the first is 0\n"
    );
}

#[test]
fn a_load_is_planned_from_as_it_is_printed() {
    let server = ApiServer::start(&["tiny-moe"]);
    let plan = |line: &str, load: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut child = command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(load.as_bytes()).unwrap();
        text(&child.wait_with_output().unwrap().stdout)
    };
    for form in ["json", "yaml"] {
        let load = shown(&server, &format!("load tiny-moe -o {form}"));
        let planned = document(&plan("plan --load - --ranks 2 --redundancy 1 -o json", &load));
        assert_eq!(planned["map"]["model"]["name"], "tiny", "{form}");
        let map = plan("plan --load - --ranks 2 --redundancy 1 --out -", &load);
        assert_eq!(document(&map), planned["map"]);
        let checked = plan("map check --from - -o json", &map);
        assert_eq!(document(&checked)["from"], "standard input");
    }
    assert!(shown(&server, "load tiny-moe -o table").contains("HOTTEST"));
    assert!(
        shown(&server, "rebalance tiny-moe")
            .starts_with("replica 0 of tiny-moe rebalances; watch it with: kubectl moe status")
    );
    assert_eq!(document(&shown(&server, "rebalance tiny-moe -o json"))["replica"], 0);
}

#[test]
fn standard_input_is_read_once_and_named_in_what_is_refused() {
    let piped = |line: &str, input: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut child =
            command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that refuses its command line reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    let twice = piped("plan --load - --current - --ranks 2", "[[1, 2]]");
    let once =
        "kubectl-moe: standard input can be read once, and - names it for two files; give one of them as a file\n";
    assert_eq!(text(&twice.stderr), once);
    let wrong = piped("plan --load - --ranks 2", "words");
    assert!(text(&wrong.stderr).starts_with("kubectl-moe: standard input is no load to plan from"), "{wrong:?}");
    let config = fs::read_to_string(super::workspace().join("examples/models/tiny-moe/config.json")).unwrap();
    let sized = piped("plan --load examples/tiny-moe-load.json --ranks 4 --model - -o json", &config);
    assert_eq!(document(&text(&sized.stdout))["bytes_per_rank"], 8 * 4 * 2 * 3 * 128 * 64);
}

/// The requests of a command that asks one deployment.
fn asked(line: &str) -> Call {
    let server = ApiServer::start(&["tiny-moe"]);
    shown(&server, line);
    server.asked().remove(0)
}

#[test]
fn the_options_of_the_cluster_are_those_of_kubectl_before_and_after_the_command() {
    let token = asked("status --token secret");
    assert_eq!(token.header("authorization"), ["Bearer secret"]);
    let basic = asked("status --username u --password p");
    assert_eq!(basic.header("authorization"), ["Basic dTpw"]);
    let acting = asked("--as bob status --as-group a --as-group b --as-uid 7");
    assert_eq!(acting.header("impersonate-user"), ["bob"]);
    assert_eq!(acting.header("impersonate-group"), ["a", "b"]);
    assert_eq!(acting.header("impersonate-uid"), ["7"]);
    for line in ["-n models status", "status -n models", "--namespace x status --namespace models"] {
        assert!(asked(line).line.contains("/namespaces/models/"), "{line}");
    }
    let server = ApiServer::start(&["tiny-moe"]);
    let late = on(&server, "status -n slow --request-timeout 200ms");
    assert_eq!(late.status.code(), Some(1));
    assert_eq!(text(&late.stderr), "kubectl-moe: no answer within 0.2 s, the --request-timeout\n");
}

#[test]
fn a_kubeconfig_is_read_and_what_it_lacks_is_named() {
    let server = ApiServer::start(&["tiny-moe"]);
    let folder = std::env::temp_dir().join(format!("kubectl-moe-habits-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("config");
    let kubeconfig = format!(
        "{{current-context: a, contexts: [{{name: a, context: {{cluster: c, user: u, namespace: models}}}}], \
         clusters: [{{name: c, cluster: {{server: '{}'}}}}], users: [{{name: u, user: {{token: of-u}}}}]}}",
        server.url
    );
    fs::write(&path, kubeconfig).unwrap();
    let path = path.to_str().unwrap();
    assert!(printed(&["status", "--kubeconfig", path]).starts_with("NAME"));
    let by_variable = command(&["status"]).env("KUBECONFIG", path).output().unwrap();
    assert!(by_variable.status.success());
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.line.contains("/namespaces/models/")), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.header("authorization") == ["Bearer of-u"]), "{asked:?}");
    let refused = |words: &[&str]| text(&run(&[&["status", "--kubeconfig", path], words].concat()).stderr);
    assert!(refused(&["--context", "b"]).contains('b'), "{}", refused(&["--context", "b"]));
    assert!(refused(&["--cluster", "d"]).starts_with("kubectl-moe: the kubeconfig cannot be used"));
    let nowhere = text(&run(&["status"]).stderr);
    assert!(nowhere.starts_with("kubectl-moe: the kubeconfig cannot be used"), "{nowhere}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn changes_are_shown_as_they_come() {
    let server = ApiServer::start(&["one", "tiny-moe"]);
    for (words, first) in [(&["status", "-w"][..], "NAME"), (&["status", "--watch", "-A", "-o", "wide"], "NAMESPACE")] {
        let mut child = command(&[words, &["--server", &server.url]].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let begin: Vec<String> = lines.by_ref().take(3).collect();
        assert!(begin[0].starts_with(first) && begin[1].contains("0.91"), "{begin:?}");
        let changed = lines.next().unwrap();
        assert!(changed.contains("one") && changed.contains("0.97"), "{changed}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn what_coordinators_say_is_watched_too() {
    let server = ApiServer::start(&["moving"]);
    for words in
        ["load moving -w", "map moving --watch", "map moving -w --map-format trtllm", "load moving -w -o table"]
    {
        let line: Vec<&str> = words.split(' ').chain(["--server", &server.url]).collect();
        let mut child = command(&line).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        let second = match words {
            "map moving -w --map-format trtllm" => lines.find(|line| line == "---"),
            "load moving -w -o table" => lines.find(|line| line.starts_with("window ")),
            _ => lines.next(),
        };
        let is_other = second.as_ref() != Some(&first) || first == "---";
        assert!(second.is_some() && is_other, "{words}: {first} {second:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn versions_are_those_of_this_program_and_of_what_runs() {
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(printed(&["version", "--client"]), format!("Client Version: {own}\n"));
    assert_eq!(printed(&["--version"]), format!("kubectl-moe {own}\n"));
    let server = ApiServer::start(&["tiny-moe"]);
    assert_eq!(
        shown(&server, "version"),
        format!(
            "Client Version: {own}\nOperator Version: 0.1.1 (system/swiftbalancer)\n\
             Coordinator Version: 0.1.2 (default/tiny-moe-0-coordinator)\n"
        )
    );
    assert_eq!(document(&shown(&server, "version -o json"))["operators"][0]["version"], "0.1.1");
    let alone = run(&["version"]);
    assert!(alone.status.success() && text(&alone.stdout).starts_with("Client Version"), "{alone:?}");
    assert!(text(&alone.stderr).starts_with("kubectl-moe: versions of the cluster are not known: "), "{alone:?}");
}

#[test]
fn kubectl_is_told_what_completes_a_word() {
    let server = ApiServer::start(&["one", "tiny-moe"]);
    let told = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl_complete-moe"));
        command.env_remove("KUBECONFIG").env("HOME", "/nowhere");
        text(&command.args(words).output().unwrap().stdout)
    };
    assert_eq!(told(&["status", "--server", &server.url, ""]).lines().next(), Some("one"));
    assert_eq!(told(&["status", "--server", &server.url, "t"]), "tiny-moe\n:4\n");
    assert_eq!(told(&["status", "t"]), ":4\n", "no cluster is no reason to complain");
    assert_eq!(told(&["simulate", "--poli"]).split('\t').next(), Some("--policies"));
}

#[test]
fn scripts_and_pages_are_made_of_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = printed(&["completion", shell]);
        assert!(script.contains("kubectl-moe") && script.contains("all-namespaces"), "{shell}");
    }
    let page = printed(&["man"]);
    assert!(page.contains(".TH kubectl\\-moe 1") || page.contains(".TH kubectl-moe 1"), "{}", &page[..200]);
    let folder = std::env::temp_dir().join(format!("kubectl-moe-man-{}", std::process::id()));
    printed(&["man", "--out", folder.to_str().unwrap()]);
    let mut pages: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    for page in ["kubectl-moe.1", "kubectl-moe-map-convert.1", "kubectl-moe-status.1"] {
        assert!(pages.iter().any(|found| found == page), "{page}: {pages:?}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn commands_that_need_no_cluster_have_no_options_of_one() {
    for command in ["plan", "simulate", "size", "map convert", "map check", "completion", "man"] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = printed(&words);
        assert!(!help.contains("Options of the cluster") && !help.contains("--kubeconfig"), "{command}: {help}");
    }
    for command in ["status", "top", "map", "load", "monitor", "bench", "rebalance", "version"] {
        let help = printed(&[command, "--help"]);
        assert!(help.contains("Options of the cluster") && help.contains("--request-timeout"), "{command}: {help}");
    }
}

#[test]
fn every_result_has_every_form() {
    let load = ["--load", "examples/loads.json", "--ranks", "4"];
    for (words, name) in
        [(&["plan"][..], None), (&["simulate", "--redundancy", "4"], Some("swift\n")), (&["size"], Some("16\n"))]
    {
        let of = |form: &str| printed(&[words, &load, &["-o", form]].concat());
        let json = document(&of("json"));
        let yaml: Value = serde_saphyr::from_str(&of("yaml")).unwrap();
        assert_eq!(yaml.as_object().unwrap().len(), json.as_object().unwrap().len(), "{words:?}");
        assert!(of("wide").len() > of("table").len(), "{words:?}");
        match name {
            Some(name) => assert_eq!(of("name"), name, "{words:?}"),
            None => assert_eq!(of("name").trim().len(), 64, "the hash of the map"),
        }
    }
    let check = |form: &str| printed(&["map", "check", "--from", "examples/map.json", "-o", form]);
    assert_eq!(check("name"), "examples/map.json\n");
    assert_eq!(document(&check("json"))["experts"], 8);
    assert!(check("wide").contains("LAYER   RANK   EXPERTS"));
}
