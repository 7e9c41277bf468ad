//! The chart itself.

use anyhow::{Result, ensure};
use tests::chart;

use crate::suite::Suite;

pub fn lints_and_renders(suite: &Suite) -> Result<()> {
    let cluster = suite.cluster()?;
    cluster.helm(["lint", "--strict", "charts/swiftbalancer"])?;
    for values in
        ["crds.enabled=false", "watchNamespace=one", "metrics.service.enabled=false", "aggregateClusterRoles=false"]
    {
        let rendered = cluster.helm(["template", "release", "charts/swiftbalancer", "--set", values])?.stdout;
        ensure!(rendered.contains("kind: Deployment"), "{values}: {rendered}");
    }
    let refused = cluster.helm(["template", "release", "charts/swiftbalancer", "--set", "pollSeconds=soon"]);
    ensure!(refused.is_err(), "a value of the wrong type was accepted");
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
