#![forbid(unsafe_code)]
//! Tests on a real Kubernetes cluster, which this program starts and takes down. Where the cluster cannot run, every test
//! is reported as ignored and the reason is printed, unless `SWIFTBALANCER_CLUSTER=required` makes that a failure.

mod balancing;
mod chart;
mod deployment;
mod gpus;
mod harness;
mod keys;
mod moves;
mod refusals;
mod serving;
mod sources;
mod suite;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tests::cluster;

use suite::{Suite, Test};

const TESTS: &[Test] = &[
    ("harness::a_pod_reads_its_image_volume_and_is_reached_by_name", harness::image_volume),
    ("harness::every_write_to_a_namespace_is_counted", harness::writes_are_counted),
    ("harness::a_node_that_is_cut_off_is_noticed_and_comes_back", harness::cut_link),
    ("harness::a_node_that_is_switched_off_loses_its_containers_and_comes_back", harness::switch_off),
    ("harness::a_cluster_without_ipv4_serves_and_moves_and_leaves_nothing_behind", harness::second_cluster),
    ("chart::an_installed_release_passes_its_test", chart::passes_helm_test),
    ("chart::a_second_release_of_the_same_name_serves_another_namespace", chart::second_release),
    ("serving::an_applied_deployment_serves_and_a_deleted_one_leaves_no_object", serving::first_token_and_nothing_left),
    ("serving::a_deleted_rank_pod_is_replaced_and_answers_stay_the_same", serving::deleted_rank),
    ("serving::the_ranks_of_a_node_that_is_cut_off_start_elsewhere", serving::node_cut_off),
    ("serving::a_changed_spec_rolls", serving::changed_spec_rolls),
    ("serving::two_replicas_that_roll_under_traffic_lose_no_request", serving::roll_under_traffic),
    ("serving::an_idle_deployment_writes_nothing_to_the_api_server", serving::idle),
    ("keys::they_are_made_asked_for_rotated_and_told_nowhere", keys::made_and_rotated),
    ("keys::a_pod_that_only_looks_like_a_coordinator_is_not_believed", keys::strangers_are_not_believed),
    ("balancing::a_deployment_that_starts_from_a_recorded_map_is_balanced_at_once", balancing::recorded_map),
    ("sources::a_checkpoint_on_a_claim_is_served_and_maps_are_recorded_beside_it", sources::claim),
    ("sources::a_checkpoint_that_cannot_be_served_holds_no_rank_pod", sources::bad_checkpoints),
    ("gpus::ranks_on_gpus_serve_and_move_in_one_pod_and_in_several", gpus::serve_and_move),
    ("refusals::bad_specs_are_refused_and_hold_no_pod", refusals::bad_specs),
    ("chart::the_operator_was_never_refused_a_request", chart::rights_suffice),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: they take times, and some switch nodes off.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let unavailable = if arguments.list { None } else { cluster::provide().err() };
    let required = std::env::var_os("SWIFTBALANCER_CLUSTER").is_some_and(|value| value == "required");
    if let Some(reason) = &unavailable
        && required
    {
        eprintln!("the cluster tests are required and cannot run: {reason:#}");
        return ExitCode::FAILURE;
    }
    let no_gpus = if arguments.list { None } else { gpus::unavailable() };
    if let Some(reason) = &no_gpus {
        eprintln!("THE CLUSTER TESTS ON EMULATED GPUS WERE NOT RUN. {reason}\n");
    }
    let suite = Arc::new(Suite::new());
    let trials = TESTS.iter().map(|&(name, test)| {
        let suite = Arc::clone(&suite);
        let run = move || suite.run(test).map_err(|error| format!("{error:#}").into());
        let is_left_out = unavailable.is_some() || (no_gpus.is_some() && name.starts_with("gpus::"));
        Trial::test(name, run).with_ignored_flag(is_left_out)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(suite);
    if let Some(reason) = &unavailable {
        eprintln!("THE CLUSTER TESTS WERE NOT RUN, only everything else. {reason:#}\n");
    }
    conclusion.exit_code()
}
