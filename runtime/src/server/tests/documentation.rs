//! What the operations guide lists is what `/metrics` has.

const PAGE: &str = include_str!("../../../../docs/operations.md");
const COORDINATOR: &[&str] = &[
    include_str!("../../coordinator/metrics.rs"),
    include_str!("../../coordinator/metrics/moving.rs"),
    include_str!("../../coordinator/metrics/scraped.rs"),
    include_str!("../metrics.rs"),
];
const RANK: &[&str] = &[include_str!("../../worker/metrics.rs")];

/// Names in the table whose first heading is `heading`.
fn listed(heading: &str) -> Vec<&'static str> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |"))).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let mut names: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    names.sort_unstable();
    names
}

/// Names that the code registers, its tests aside.
fn registered(sources: &[&'static str]) -> Vec<&'static str> {
    let code = sources.iter().map(|source| source.split("#[cfg(test)]").next().unwrap_or_default());
    let is_name = |text: &&str| {
        ["swiftbalancer_", "expert_load", "ttft_", "tpot_"].iter().any(|start| text.starts_with(start))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut names: Vec<_> = code.flat_map(|code| code.split('"')).filter(is_name).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_metric_is_listed_once() {
    for (heading, sources) in [("metric of coordinators", COORDINATOR), ("metric of ranks", RANK)] {
        let registered = registered(sources);
        assert!(registered.len() > 5, "{registered:?}");
        assert_eq!(listed(heading), registered, "{heading}");
    }
}
