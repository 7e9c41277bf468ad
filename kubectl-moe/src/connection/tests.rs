use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    connection: Connection,
}

fn given(line: &str) -> Connection {
    let words = std::iter::once("kubectl-moe").chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).connection
}

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts:
- name: one
  context: {cluster: first, user: somebody, namespace: models}
- name: two
  context: {cluster: second}
clusters:
- name: first
  cluster: {server: 'https://127.0.0.1:1', tls-server-name: first, certificate-authority-data: ''}
- name: second
  cluster: {server: 'https://127.0.0.1:2'}
users:
- name: somebody
  user: {username: somebody, password: word}
- name: other
  user: {token: other}
";

async fn config(line: &str) -> Config {
    let connection = given(line);
    let options = KubeConfigOptions {
        context: connection.context.clone(),
        cluster: connection.cluster.clone(),
        user: connection.user.clone(),
    };
    let kubeconfig = connection.over(Kubeconfig::from_yaml(KUBECONFIG).unwrap());
    Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()
}

/// Who is told to be asking: the ways of saying so that are in force, secrets as they are sent.
fn asking(config: &Config) -> serde_json::Value {
    serde_json::to_value(&config.auth_info).unwrap()
}

#[tokio::test]
async fn without_options_the_current_context_is_used() {
    let config = config("").await;
    assert_eq!(config.cluster_url, "https://127.0.0.1:1/");
    assert_eq!((config.default_namespace.as_str(), config.tls_server_name.as_deref()), ("models", Some("first")));
    assert_eq!(asking(&config)["username"], "somebody");
}

#[tokio::test]
async fn contexts_clusters_and_users_are_chosen_by_name() {
    let other = config("--context two --user other").await;
    assert_eq!(other.cluster_url, "https://127.0.0.1:2/");
    assert_eq!(asking(&other)["token"], "other");
    assert_eq!(config("--cluster second").await.cluster_url, "https://127.0.0.1:2/");
}

#[tokio::test]
async fn what_the_command_line_says_takes_the_place_of_what_the_kubeconfig_says() {
    let served = config("--server https://127.0.0.1:3 --insecure-skip-tls-verify --disable-compression").await;
    assert_eq!(served.cluster_url, "https://127.0.0.1:3/");
    assert!(served.accept_invalid_certs && served.disable_compression && served.tls_server_name.is_none());
    assert!(served.root_cert.is_none());
    assert_eq!(config("-s https://127.0.0.1:3 --tls-server-name x").await.tls_server_name.as_deref(), Some("x"));
    let token = config("--token secret").await;
    let who = asking(&token);
    assert_eq!(who["token"], "secret");
    assert!(who["username"].is_null() && who["password"].is_null(), "one way of saying who asks: {who}");
    let acting = asking(&config("--as bob --as-group a --as-group b --as-uid 7").await);
    assert_eq!((&acting["as"], &acting["username"]), (&"bob".into(), &"somebody".into()), "{acting}");
    assert_eq!(acting["as-groups"], serde_json::json!(["a", "b"]));
}

#[tokio::test]
async fn a_server_alone_is_enough() {
    let connection = given("--server http://127.0.0.1:8080 --token t");
    let kubeconfig = connection.over(Kubeconfig::default());
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    assert_eq!(
        (config.cluster_url.to_string().as_str(), config.default_namespace.as_str()),
        ("http://127.0.0.1:8080/", "default")
    );
    assert_eq!(asking(&config)["token"], "t");
}

#[test]
fn options_after_the_command_win_over_those_before_it() {
    let both = given("-n inner").or(given("-n outer --context outer --as-group g --request-timeout 5s"));
    assert_eq!(both, given("-n inner --context outer --as-group g --request-timeout 5s"));
}

#[test]
fn times_are_those_that_kubectl_takes() {
    let seconds = |text: &str| duration(text).map(|timeout| timeout.map(|timeout| timeout.as_secs_f64()));
    for (text, expected) in
        [("0", None), ("0s", None), ("30", Some(30.0)), ("1s", Some(1.0)), ("1m30s", Some(90.0)), ("500ms", Some(0.5))]
    {
        assert_eq!(seconds(text), Ok(expected), "{text}");
    }
    for wrong in ["", "-1s", "soon", "1 fortnight"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}
