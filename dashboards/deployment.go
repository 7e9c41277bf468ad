package main

import "github.com/grafana/grafana-foundation-sdk/go/dashboard"

// ofReplicas selects the series of the chosen replicas.
const ofReplicas = `namespace=~"$namespace", deployment=~"$deployment", replica=~"$replica"`

func ofDeployment(uid, title, description string) *dashboard.DashboardBuilder {
	return page(uid, title, description,
		choice("namespace", "Namespace", "swiftbalancer_map_epoch", ""),
		choice("deployment", "Deployment", "swiftbalancer_map_epoch", `{namespace=~"$namespace"}`),
		choice("replica", "Replica", "swiftbalancer_map_epoch", `{namespace=~"$namespace", deployment=~"$deployment"}`))
}

// deployment shows one deployment: what its users feel, how even its load is, what moves, and what its ranks do.
func deployment() *dashboard.DashboardBuilder {
	f := func(expr, legend string) Query { return q(ofReplicas, expr, legend) }
	quantiles := func(metric string) []Query {
		of := func(part, legend string) Query {
			return f(`histogram_quantile(`+part+`, sum by (le) (rate(`+metric+`_bucket{@}[$__rate_interval])))`, legend)
		}
		return []Query{of("0.5", "p50"), of("0.95", "p95"), of("0.99", "p99")}
	}
	return ofDeployment("deployment", "Deployment", "One MoEDeployment: what its users feel, how even its load is, what moves, and what its ranks do.").
		WithPanel(number("Balance", "Expert load balance ratio of the last window, of the worst replica that is chosen; 1 is perfect.", share,
			f(`min(expert_load_balance_ratio{@})`, ""),
			base("red"), step("orange", 0.7), step("green", 0.85))).
		WithPanel(number("TTFT p99", "99th percentile of the time to the first token over the last minute.", seconds,
			f(`max(ttft_p99{@})`, ""))).
		WithPanel(number("TPOT", "Mean time per token after the first over the last minute.", seconds,
			f(`max(tpot_avg{@})`, ""))).
		WithPanel(number("Tokens", "Tokens generated in a second.", tokensASec,
			f(`sum(rate(swiftbalancer_completion_tokens_total{@}[$__rate_interval]))`, ""))).
		WithPanel(number("Epoch", "Version of the expert map in force: it rises with each transaction.", none,
			f(`max(swiftbalancer_map_epoch{@})`, ""))).
		WithPanel(number("Map in force for", "Time since the map last changed.", windowSpan,
			f(`min(swiftbalancer_map_age_seconds{@})`, ""))).
		WithRow(row("Users")).
		WithPanel(graph("Time to the first token", "From submission to the first token: waiting and the prompt.", seconds,
			quantiles("swiftbalancer_time_to_first_token_seconds")...)).
		WithPanel(graph("Between two tokens", "From one token of a sequence to its next: the steps, and what is computed beside them.", seconds,
			quantiles("swiftbalancer_inter_token_latency_seconds")...)).
		WithPanel(graph("Time per token", "Mean over the last minute, of each replica.", seconds,
			f(`tpot_avg{@}`, "replica {{replica}}"))).
		WithPanel(stacked("Requests by outcome", "`failed` could not be served, `overloaded` found the queue full, `refused` is the client's mistake.", perSecond,
			f(`sum by (outcome) (rate(swiftbalancer_requests_total{@}[$__rate_interval]))`, "{{outcome}}"))).
		WithPanel(graph("Sequences", "Those that hold blocks of the cache, those that wait, and the requests that are being answered.", none,
			f(`sum(swiftbalancer_sequences_running{@})`, "running"),
			f(`sum(swiftbalancer_sequences_waiting{@})`, "waiting"),
			f(`sum(swiftbalancer_requests_in_flight{@})`, "requests"))).
		WithPanel(graph("Tokens", "Of prompts taken, and generated.", tokensASec,
			f(`sum(rate(swiftbalancer_prompt_tokens_total{@}[$__rate_interval]))`, "prompts"),
			f(`sum(rate(swiftbalancer_completion_tokens_total{@}[$__rate_interval]))`, "generated"))).
		WithRow(row("Balance")).
		WithPanel(heat("Load of each rank", "What each rank computed in the last window, by the mean of its replica: 1 is even. A row that stays red is a rank that every step waits for.", none,
			f(`swiftbalancer_window_pairs{@} / on (namespace, deployment, replica) group_left () avg by (namespace, deployment, replica) (swiftbalancer_window_pairs{@})`, "{{replica}}/{{rank}}"))).
		WithPanel(graph("Balance", "Sum over layers of mean rank load by sum of maximum rank load, of the last window.", share,
			f(`expert_load_balance_ratio{@}`, "replica {{replica}}")).Max(1).Span(12).Height(9)).
		WithPanel(graph("Epoch", "Version of the map in force.", none,
			f(`swiftbalancer_map_epoch{@}`, "replica {{replica}}"))).
		WithPanel(graph("Load of the busiest rank", "By the mean of its replica: a step takes about this much longer than it could.", none,
			f(`max by (replica) (swiftbalancer_window_pairs{@}) / avg by (replica) (swiftbalancer_window_pairs{@})`, "replica {{replica}}"))).
		WithPanel(graph("Map in force for", "Time since it came into force; falls to 0 with each commit.", seconds,
			f(`swiftbalancer_map_age_seconds{@}`, "replica {{replica}}"))).
		WithRow(row("Moves")).
		WithPanel(graph("Experts moved", "Pages received by ranks.", expertsASec,
			f(`sum by (replica) (rate(swiftbalancer_experts_moved_total{@}[$__rate_interval]))`, "replica {{replica}}"))).
		WithPanel(graph("Bytes moved", "Of those pages.", bytesASec,
			f(`sum by (replica) (rate(swiftbalancer_bytes_moved_total{@}[$__rate_interval]))`, "replica {{replica}}"))).
		WithPanel(stacked("Pages by route", "Where the pages came from: the memory of a `peer`, a rank of the same `node`, the `network`, or the `checkpoint` where no rank gave it.", pagesASec,
			f(`sum by (route) (rate(swiftbalancer_rank_received_pages_total{@}[$__rate_interval]))`, "{{route}}"))).
		WithPanel(stacked("Rebalances", "Plans that ended in ten minutes: `completed`, `kept` because moving was not worth it, or `dropped`.", none,
			f(`sum by (outcome) (increase(swiftbalancer_rebalances_total{@}[10m]))`, "{{outcome}}"))).
		WithPanel(graph("Stalls", "Part of the time that commits added to steps, on the slowest rank.", share,
			f(`rate(swiftbalancer_commit_stall_seconds_total{@}[$__rate_interval])`, "replica {{replica}}"))).
		WithPanel(stacked("Transactions taken back", "In ten minutes, by reason. The old map serves on; `deadline`, `source_unreachable` and `corrupt` point at the network.", none,
			f(`sum by (reason) (increase(swiftbalancer_move_aborts_total{@}[10m]))`, "{{reason}}"))).
		WithRow(row("Ranks")).
		WithPanel(stacked("Where a step's time goes", "Of the mean step of a rank: experts, exchange of rows with others (which waits for the slowest), commits, and the rest.", seconds,
			f(`sum by (part) (rate(swiftbalancer_rank_step_seconds_total{@}[$__rate_interval])) / scalar(sum(rate(swiftbalancer_rank_steps_total{@}[$__rate_interval])))`, "{{part}}"))).
		WithPanel(graph("Steps", "From sending a step to having every rank's answer.", seconds,
			quantiles("swiftbalancer_step_seconds")...)).
		WithPanel(graph("Time at experts", "Seconds of each second that a rank computes experts: as uneven as the load.", share,
			f(`rate(swiftbalancer_rank_step_seconds_total{@, part="experts"}[$__rate_interval])`, "{{replica}}/{{rank}}"))).
		WithPanel(graph("KV cache", "Part of each rank's blocks that sequences hold. At 1 sequences wait for blocks.", share,
			f(`swiftbalancer_kv_blocks_used{@} / (swiftbalancer_kv_blocks{@} > 0)`, "{{replica}}/{{rank}}")).Max(1)).
		WithPanel(graph("GPU use", "Part of the time in which a kernel ran.", share,
			f(`gpu_utilization{@}`, "{{replica}}/{{rank}}")).Max(1)).
		WithPanel(graph("GPU memory", "That is taken.", bytes,
			f(`swiftbalancer_rank_gpu_memory_used_bytes{@}`, "{{replica}}/{{rank}}"))).
		WithPanel(graph("Staging pages", "That transactions under way need.", none,
			f(`swiftbalancer_staging_pages_used{@}`, "{{replica}}/{{rank}}"))).
		WithPanel(graph("Loading", "Part of the weights that a rank has read of those that it had to read for its last group.", share,
			f(`swiftbalancer_rank_loaded_bytes{@} / (swiftbalancer_rank_load_bytes{@} > 0)`, "{{replica}}/{{rank}}")).Max(1)).
		WithPanel(graph("Lost", "In ten minutes: groups that ended with a lost rank, sequences that ran again for that, and those that ended without an answer.", none,
			f(`sum(increase(swiftbalancer_groups_lost_total{@}[10m]))`, "groups"),
			f(`sum(increase(swiftbalancer_sequences_put_back_total{@}[10m]))`, "sequences put back"),
			f(`sum(increase(swiftbalancer_sequences_failed_total{@}[10m]))`, "sequences failed"))).
		WithPanel(states("Part of a group", "Whether each rank is part of a group; a replica serves while all of its are.",
			f(`swiftbalancer_rank_formed{@}`, "{{replica}}/{{rank}}"))).
		WithPanel(graph("Memory of processes", "Resident, of coordinators and ranks.", bytes,
			f(`process_resident_memory_bytes{@}`, "{{pod}}")).Span(12))
}
