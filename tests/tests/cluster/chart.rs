//! The chart itself.

use anyhow::{Result, ensure};
use tests::chart;

use crate::suite::Suite;

pub fn lints_and_renders(suite: &Suite) -> Result<()> {
    let cluster = suite.cluster()?;
    let render = |values: &str, more: &[&str]| {
        let arguments = ["template", "release", "charts/swiftbalancer", "--set", values];
        Ok(cluster.helm(arguments.iter().chain(more).copied())?.stdout)
    };
    cluster.helm(["lint", "--strict", "charts/swiftbalancer"])?;
    for values in
        ["crds.enabled=false", "watchNamespace=one", "metrics.service.enabled=false", "aggregateClusterRoles=false"]
    {
        let rendered = render(values, &[])?;
        ensure!(rendered.contains("kind: Deployment"), "{values}: {rendered}");
    }
    let restricted = render("networkPolicy.enabled=true", &["--set-json=networkPolicy.from=[{\"podSelector\":{}}]"])?;
    ensure!(restricted.contains("kind: NetworkPolicy"), "{restricted}");
    let folders = render("allowedHostPaths={/srv/models,/mnt/with a space}", &[])?;
    ensure!(folders.contains(r#"- "--allow-host-path=/mnt/with a space""#), "{folders}");
    let images = render("runtime.gpuImage.tag=v9", &[])?;
    ensure!(images.contains("- --gpu-runtime-image=docker.io/swiftbalancer/runtime-cuda:v9\n"), "{images}");
    let without = render("runtime.gpuImage.repository=", &[])?;
    ensure!(!without.contains("gpu-runtime-image"), "{without}");
    let monitor = "metrics.serviceMonitor.enabled=true";
    let monitored = render(monitor, &["--api-versions=monitoring.coreos.com/v1"])?;
    ensure!(monitored.contains("kind: ServiceMonitor"), "{monitored}");
    let folder = ["allowedHostPaths={models}", "allowedHostPaths={/srv/../etc}", "allowedHostPaths=/srv"];
    for refused in ["pollSeconds=soon", "unknown=1", monitor].into_iter().chain(folder) {
        let rendered: Result<String> = render(refused, &[]);
        ensure!(rendered.is_err(), "{refused} was accepted");
    }
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
