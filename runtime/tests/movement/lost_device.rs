//! A device that fails in a step: its rank leaves with the reason, the group forms again, and what was moved to before serves on.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use kernels::cpu::Cpu;
use plan::ids::RankId;
use plan::words::with_causes;
use runtime::coordinator::ranks::Ranks as _;
use runtime::device::DeviceOptions;
use runtime::worker::WorkerSettings;

use crate::device::{Fault, Watched};
use crate::group::{Deployment, Moves, PATIENCE, Sequence, Setup, Worker, advance_ahead, settings};
use crate::{STEPS, seed, sequences, serve};

/// What is said of such a device.
const WHY: &str = "a step failed: the device failed: it was told to";

/// A group of two whose second rank has a device that fails as it is told to, and where that rank's metrics are.
struct Group {
    setup: Setup,
    deployment: Deployment,
    fault: Fault,
    metrics: SocketAddr,
}

/// The second rank of a group.
fn second(coordinator: SocketAddr, setup: &Setup, (fault, metrics): (&Fault, SocketAddr)) -> Worker {
    let fault = fault.clone();
    let settings = WorkerSettings { health_listen: metrics, ..settings(1, coordinator, setup) };
    Worker::on(settings, move |DeviceOptions { threads, fingerprint_seed, .. }| {
        Ok(Watched::of(Cpu::new(threads).with_fingerprint_seed(fingerprint_seed), fault))
    })
}

fn group(seed: u64) -> Group {
    let setup = Setup { moves: Some(Moves { every: 5, seed, patient: true }), ..still() };
    let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let fault = Fault::default();
    let mut deployment = Deployment::begin(setup, |rank, coordinator| match rank {
        1 => second(coordinator, &setup, (&fault, metrics)),
        _ => Worker::start(rank, coordinator, &setup),
    });
    deployment.wait_for_group();
    deployment.run_in();
    Group { setup, deployment, fault, metrics }
}

fn still() -> Setup {
    Setup { ranks: 2, redundancy: 2, ..Setup::default() }
}

fn expected(seed: u64) -> Vec<Vec<u32>> {
    serve(&mut Deployment::start(still()), sequences(&still(), 16, seed))
}

/// Serves to the end; when half is done the second rank's device fails in one of the next steps, and `lost` is what is done about it.
fn serve_through(group: &mut Group, seed: u64, usable: bool, mut lost: impl FnMut(&mut Group)) -> Vec<Vec<u32>> {
    let mut sequences = sequences(&group.setup, 16, seed);
    let (mut told, mut map) = (false, None);
    while sequences[0].output().len() < STEPS {
        if sequences[0].output().len() == STEPS / 2 && !told {
            group.fault.after(seed % 4, usable);
            told = true;
        }
        if advance_ahead(&mut group.deployment, &mut sequences) {
            map = Some(group.deployment.rebalancer.map_document());
        } else {
            lost(group);
            group.deployment.wait_for_group();
            assert_eq!(Some(group.deployment.rebalancer.map_document()), map, "the map that was in force serves on");
            sequences.iter_mut().for_each(Sequence::forget);
            group.deployment.run_in();
        }
    }
    assert!(group.deployment.rebalancer.epoch() > 0, "experts have moved");
    assert_eq!(group.deployment.fleet.generation(), 2);
    assert_eq!(group.deployment.losses, [(RankId(1), WHY.to_owned())], "it was lost once");
    sequences.iter().map(|sequence| sequence.output().to_vec()).collect()
}

/// What a rank answers, with its head.
pub fn answer(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: rank\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    text
}

/// What a rank says of a metric.
fn metric(address: SocketAddr, name: &str) -> String {
    let text = answer(address, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().to_owned()
}

#[test]
fn a_rank_whose_device_fails_and_can_be_used_again_leaves_its_group_and_forms_the_next() {
    let seed = seed();
    let mut group = group(seed);
    let left = "swiftbalancer_rank_groups_left_total{rank=\"1\",reason=\"device\"}";
    assert_eq!(metric(group.metrics, left), "0");
    let tokens = serve_through(&mut group, seed, true, |_| {});
    assert!(tokens == expected(seed), "seed {seed}");
    // The same process: it counts on.
    assert_eq!(metric(group.metrics, left), "1");
    let Some(rank) = group.deployment.workers[1].take() else { panic!("it was there") };
    rank.stop().unwrap();
}

#[test]
fn a_rank_whose_device_is_lost_ends_with_what_it_said_and_another_takes_its_place() {
    let seed = seed();
    let mut group = group(seed);
    let mut ended = None;
    let tokens = serve_through(&mut group, seed, false, |group| {
        let Some(rank) = group.deployment.workers[1].take() else { panic!("it was there") };
        ended = Some(rank.join().unwrap_err());
        let (coordinator, started) = (group.deployment.fleet.address(), Instant::now());
        // Its port is free again when its process would have ended.
        while TcpListener::bind(group.metrics).is_err() {
            assert!(started.elapsed() < PATIENCE, "it still serves its metrics");
        }
        group.deployment.workers[1] = Some(second(coordinator, &group.setup, (&group.fault, group.metrics)));
    });
    assert!(tokens == expected(seed), "seed {seed}");
    let said = with_causes(&ended.unwrap());
    assert_eq!(said, format!("the thread 'engine' ended, which this process cannot do without: {WHY}"));
}
