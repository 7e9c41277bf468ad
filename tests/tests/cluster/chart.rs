//! The chart itself.

use anyhow::{Result, ensure};
use tests::chart;

use crate::suite::Suite;

/// Where another release serves.
const TENANT: &str = "tenant";

/// A second release of the same name, for one namespace: through install, upgrade, rollback and uninstall the first has what it had.
pub fn second_release(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    let of_tenant = |argument: String| if argument == chart::NAMESPACE { TENANT.to_owned() } else { argument };
    let install = |more: &[&str]| {
        let mut arguments: Vec<String> = chart::install_arguments(&[]).into_iter().map(of_tenant).collect();
        let values = ["watchNamespace=tenant", "nodes.watch=false", "networkPolicy.enabled=true"];
        for value in values.iter().chain(more) {
            arguments.extend(["--set".to_owned(), (*value).to_owned()]);
        }
        cluster.helm(arguments.iter().map(String::as_str))
    };
    let tested = || cluster.helm(["test", chart::RELEASE, "--namespace", TENANT, "--timeout=60s"]);
    let owner = || -> Result<String> {
        let path = r"jsonpath={.metadata.annotations.meta\.helm\.sh/release-namespace}";
        Ok(cluster.kubectl(["get", "crd", "moedeployments.swiftbalancer.io", "--output", path])?.stdout)
    };
    install(&[])?;
    ensure!(tested()?.stdout.contains("Succeeded"));
    install(&["log=debug"])?;
    cluster.helm(["rollback", chart::RELEASE, "1", "--namespace", TENANT, "--wait", "--timeout=2m"])?;
    ensure!(tested()?.stdout.contains("Succeeded"));
    ensure!(owner()? == chart::NAMESPACE);
    cluster.helm(["uninstall", chart::RELEASE, "--namespace", TENANT, "--wait"])?;
    ensure!(owner()? == chart::NAMESPACE, "the definition belongs to another release");
    Ok(())
}

/// The question that the chart asks of itself.
pub fn passes_helm_test(suite: &Suite) -> Result<()> {
    let tested = suite.installed()?.helm(["test", chart::RELEASE, "--namespace", chart::NAMESPACE, "--timeout=60s"])?;
    ensure!(tested.stdout.contains("Succeeded"), "{}", tested.stdout);
    Ok(())
}

/// What all tests before this one made the operator do was within the rights that the chart gives it.
pub fn rights_suffice(suite: &Suite) -> Result<()> {
    let operator = format!("system:serviceaccount:{}:", chart::NAMESPACE);
    let requests = suite.installed()?.audit_log().read()?;
    let own: Vec<_> = requests.iter().filter(|request| request.user.starts_with(&operator)).collect();
    let refused: Vec<_> = own.iter().filter(|request| request.code == 401 || request.forbidden).collect();
    ensure!(own.iter().any(|request| !request.is_write()), "no request of the operator was recorded");
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}
