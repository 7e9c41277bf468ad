package main

import "github.com/grafana/grafana-foundation-sdk/go/dashboard"

// planner shows what was decided and why, how long it took, and what became of it.
func planner() *dashboard.DashboardBuilder {
	f := func(expr, legend string) Query { return q(ofReplicas, expr, legend) }
	return ofDeployment("planner", "Planner", "What was decided and why, how long it took, and what became of it.").
		WithPanel(stacked("Decisions", "Plans decided on in ten minutes, by reason. `worth_it`, `cut_to_budget`, `covers` and `shares_only` move; the others stay.", none,
			f(`sum by (reason) (increase(swiftbalancer_decisions_total{@}[10m]))`, "{{reason}}")).Span(12)).
		WithPanel(graph("Balance", "Of the last window: what the decisions are to raise.", share,
			f(`expert_load_balance_ratio{@}`, "replica {{replica}}")).Max(1).Span(12)).
		WithPanel(graph("Planning takes", "From asking for a plan to having it. It is computed beside the steps and holds none up.", seconds,
			f(`histogram_quantile(0.5, sum by (le) (rate(swiftbalancer_planner_seconds_bucket{@}[$__rate_interval])))`, "p50"),
			f(`histogram_quantile(0.99, sum by (le) (rate(swiftbalancer_planner_seconds_bucket{@}[$__rate_interval])))`, "p99"))).
		WithPanel(buckets("Planning takes, spread", "How many plans took how long.", seconds,
			f(`sum by (le) (increase(swiftbalancer_planner_seconds_bucket{@}[$__rate_interval]))`, "{{le}}"))).
		WithPanel(graph("Phases take", "Mean time of each phase before the next: collecting a window, planning, moving.", seconds,
			f(`sum by (phase) (rate(swiftbalancer_rebalance_phase_seconds_sum{@}[10m])) / sum by (phase) (rate(swiftbalancer_rebalance_phase_seconds_count{@}[10m]))`, "{{phase}}"))).
		WithPanel(stacked("Plans by how they ended", "In ten minutes. One that is dropped was given up: the log has why.", none,
			f(`sum by (outcome) (increase(swiftbalancer_rebalances_total{@}[10m]))`, "{{outcome}}"))).
		WithPanel(graph("Transactions", "Committed and taken back, in ten minutes.", none,
			f(`sum(increase(swiftbalancer_transactions_committed_total{@}[10m]))`, "committed"),
			f(`sum(increase(swiftbalancer_move_aborts_total{@}[10m]))`, "taken back"))).
		WithPanel(graph("Bytes of a transaction", "Mean over ten minutes: what an exchange of experts costs.", bytes,
			f(`sum by (replica) (increase(swiftbalancer_bytes_moved_total{@}[10m])) / (sum by (replica) (increase(swiftbalancer_transactions_committed_total{@}[10m])) > 0)`, "replica {{replica}}"))).
		WithPanel(stacked("Not staged", "Transactions that ranks could not stage in ten minutes, by reason.", none,
			f(`sum by (reason) (increase(swiftbalancer_rank_move_failures_total{@}[10m]))`, "{{reason}}"))).
		WithPanel(graph("Windows without load", "In ten minutes: nothing is planned from a window in which nothing was computed.", none,
			f(`sum by (replica) (increase(swiftbalancer_windows_without_load_total{@}[10m]))`, "replica {{replica}}"))).
		WithPanel(stacked("Maps recorded to files", "In ten minutes, by outcome.", none,
			f(`sum by (outcome) (increase(swiftbalancer_map_records_total{@}[10m]))`, "{{outcome}}")))
}
