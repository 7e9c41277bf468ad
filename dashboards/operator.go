package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// operator shows the operator itself: whether it works, what it writes and what it cannot do.
func operator() *dashboard.DashboardBuilder {
	f := func(expr, legend string) Query { return Query{expr, legend} }
	const process = ` and on (instance) swiftbalancer_operator_ready`
	return page("operator", "Operator", "The operator itself: whether it works, what it writes and what it cannot do.").
		WithPanel(number("Ready", "Operators whose caches are filled. 0, or none, and nothing is reconciled; what serves serves on.", none,
			f(`sum(swiftbalancer_operator_ready) or vector(0)`, ""), base("red"), step("green", 1))).
		WithPanel(number("Version", "Of the operators, how many run.", none,
			f(`count by (version) (swiftbalancer_operator_build_info)`, "{{version}}")).
			TextMode(common.BigValueTextModeName)).
		WithPanel(number("Deployments", "That it knows.", none,
			f(`count(swiftbalancer_operator_deployment_wanted_replicas)`, ""))).
		WithPanel(number("Runs since", "When its process started.", sinceEpoch,
			f(`max((process_start_time_seconds`+process+`) * 1000)`, ""))).
		WithPanel(number("Failed passes", "In ten minutes.", none,
			f(`sum(increase(swiftbalancer_operator_reconcile_seconds_count{outcome="error"}[10m]))`, ""),
			base("green"), step("orange", 1))).
		WithPanel(number("Writes", "To the API server: none while nothing changes.", writesASec,
			f(`sum(rate(swiftbalancer_operator_api_writes_total[$__rate_interval]))`, ""),
			base("green"), step("orange", 10))).
		WithPanel(stacked("Passes", "Over deployments, by outcome.", passesASec,
			f(`sum by (outcome) (rate(swiftbalancer_operator_reconcile_seconds_count[$__rate_interval]))`, "{{outcome}}"))).
		WithPanel(graph("A pass takes", "From its begin to its last write.", seconds,
			f(`histogram_quantile(0.5, sum by (le) (rate(swiftbalancer_operator_reconcile_seconds_bucket[$__rate_interval])))`, "p50"),
			f(`histogram_quantile(0.99, sum by (le) (rate(swiftbalancer_operator_reconcile_seconds_bucket[$__rate_interval])))`, "p99"))).
		WithPanel(graph("Passes under way", "At 8, which is the most at a time, others wait.", none,
			f(`sum(swiftbalancer_operator_reconciles_in_flight)`, "under way"))).
		WithPanel(stacked("Errors", "Failed passes in ten minutes, by kind of error. The status of the deployment has the API server's own words.", none,
			f(`sum by (error) (increase(swiftbalancer_operator_reconcile_errors_total[10m]))`, "{{error}}"))).
		WithPanel(stacked("Writes", "To the API server, by kind of object and verb. A line that does not end is a fight with somebody over an object.", writesASec,
			f(`sum by (kind, verb) (rate(swiftbalancer_operator_api_writes_total[$__rate_interval]))`, "{{verb}} {{kind}}"))).
		WithPanel(graph("Deployments by reason", "Of the condition Ready.", none,
			f(`count by (reason) (swiftbalancer_operator_deployment_condition_reason{condition="Ready"})`, "{{reason}}"))).
		WithPanel(graph("Memory", "Resident.", bytes,
			f(`process_resident_memory_bytes`+process, "{{instance}}"))).
		WithPanel(graph("CPU", "Cores.", none,
			f(`rate(process_cpu_seconds_total[$__rate_interval])`+process, "{{instance}}"))).
		WithPanel(graph("Open files", "Connections to the API server and to coordinators among them.", none,
			f(`process_open_fds`+process, "{{instance}}")))
}
