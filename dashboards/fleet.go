package main

import "github.com/grafana/grafana-foundation-sdk/go/dashboard"

// fleet shows all deployments: which one needs somebody, and what all of them give.
func fleet() *dashboard.DashboardBuilder {
	const of = `namespace=~"$namespace"`
	f := func(expr, legend string) Query { return q(of, expr, legend) }
	const name = "{{namespace}}/{{deployment}}"
	return page("fleet", "Fleet", "All MoEDeployments: which one needs somebody, and what all of them give.",
		choice("namespace", "Namespace", "swiftbalancer_operator_deployment_wanted_replicas", "")).
		WithPanel(number("Deployments", "MoEDeployments that the operator knows.", none,
			f(`count(swiftbalancer_operator_deployment_wanted_replicas{@})`, ""))).
		WithPanel(number("Not ready", "Deployments of which some replica does not serve the current specification. Their reasons are below.", none,
			f(`count(swiftbalancer_operator_deployment_condition{@, condition="Ready"} == 0) or vector(0)`, ""),
			base("green"), step("orange", 1))).
		WithPanel(number("Degraded", "Deployments in which something that should work does not.", none,
			f(`sum(swiftbalancer_operator_deployment_condition{@, condition="Degraded"}) or vector(0)`, ""),
			base("green"), step("red", 1))).
		WithPanel(number("Lowest balance", "The lowest expert load balance ratio of any replica; 1 is perfect, and a step takes 1/ratio of the time that it could.", share,
			f(`min(expert_load_balance_ratio{@})`, ""),
			base("red"), step("orange", 0.7), step("green", 0.85))).
		WithPanel(number("Requests", "Requests that end in a second, however they end.", perSecond,
			f(`sum(rate(swiftbalancer_requests_total{@}[$__rate_interval]))`, ""))).
		WithPanel(number("Tokens", "Tokens generated in a second.", tokensASec,
			f(`sum(rate(swiftbalancer_completion_tokens_total{@}[$__rate_interval]))`, ""))).
		WithPanel(rows("Deployments", "One row for each deployment. A deployment whose row has no latency has had no request in the last minute; one without a balance has closed no window.",
			[]string{"namespace", "deployment"},
			Column{"wanted", "", f(`sum by (namespace, deployment) (swiftbalancer_operator_deployment_wanted_replicas{@})`, "")},
			Column{"ready", "", f(`sum by (namespace, deployment) (swiftbalancer_operator_deployment_ready_replicas{@})`, "")},
			Column{"balance", share, f(`min by (namespace, deployment) (expert_load_balance_ratio{@})`, "")},
			Column{"TTFT p99", seconds, f(`max by (namespace, deployment) (ttft_p99{@})`, "")},
			Column{"TPOT", seconds, f(`max by (namespace, deployment) (tpot_avg{@})`, "")},
			Column{"requests/s", perSecond, f(`sum by (namespace, deployment) (rate(swiftbalancer_requests_total{@}[5m]))`, "")},
			Column{"waiting", "", f(`sum by (namespace, deployment) (swiftbalancer_sequences_waiting{@})`, "")},
			Column{"epoch", "", f(`max by (namespace, deployment) (swiftbalancer_map_epoch{@})`, "")})).
		WithPanel(states("Ready", "Since when every replica of a deployment serves its current specification.",
			f(`max by (namespace, deployment) (swiftbalancer_operator_deployment_condition{@, condition="Ready"})`, name))).
		WithPanel(rows("Reasons", "What the conditions of the deployments say; docs/operations.md has what to do about each reason.",
			[]string{"namespace", "deployment", "condition", "reason"},
			Column{"so", "", f(`max by (namespace, deployment, condition, reason) (swiftbalancer_operator_deployment_condition_reason{@, condition=~"Ready|Degraded|Progressing|Balanced"})`, "")}).
			Span(12)).
		WithPanel(graph("Balance", "Expert load balance ratio of the last window, of the worst replica of each deployment.", share,
			f(`min by (namespace, deployment) (expert_load_balance_ratio{@})`, name)).Max(1)).
		WithPanel(graph("Time to the first token, p99", "Of each deployment, from submission to the first token.", seconds,
			f(`histogram_quantile(0.99, sum by (namespace, deployment, le) (rate(swiftbalancer_time_to_first_token_seconds_bucket{@}[$__rate_interval])))`, name))).
		WithPanel(graph("Between two tokens, p99", "Of each deployment, from one token of a sequence to its next.", seconds,
			f(`histogram_quantile(0.99, sum by (namespace, deployment, le) (rate(swiftbalancer_inter_token_latency_seconds_bucket{@}[$__rate_interval])))`, name))).
		WithPanel(stacked("Tokens", "Tokens generated in a second.", tokensASec,
			f(`sum by (namespace, deployment) (rate(swiftbalancer_completion_tokens_total{@}[$__rate_interval]))`, name))).
		WithPanel(stacked("Requests by outcome", "How the requests of all deployments end: `failed` could not be served, `overloaded` found the queue full, `refused` is the client's mistake.", perSecond,
			f(`sum by (outcome) (rate(swiftbalancer_requests_total{@}[$__rate_interval]))`, "{{outcome}}"))).
		WithPanel(graph("Waiting", "Sequences in the queues: more of them than a moment ago, again and again, means too few replicas.", none,
			f(`sum by (namespace, deployment) (swiftbalancer_sequences_waiting{@})`, name))).
		WithPanel(graph("GPU use", "Part of the time in which a kernel ran, mean over the GPUs of each deployment.", share,
			f(`avg by (namespace, deployment) (gpu_utilization{@})`, name)).Max(1)).
		WithPanel(graph("Bytes moved", "Expert weights that went from rank to rank.", bytesASec,
			f(`sum by (namespace, deployment) (rate(swiftbalancer_bytes_moved_total{@}[$__rate_interval]))`, name))).
		WithPanel(graph("Groups lost", "Groups of ranks that ended because a rank was lost, in ten minutes.", none,
			f(`sum by (namespace, deployment) (increase(swiftbalancer_groups_lost_total{@}[10m]))`, name)))
}
