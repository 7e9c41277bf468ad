//! Ranks whose devices have memory of their own: what they keep has to fit there, whatever their machine has.

use std::net::SocketAddr;

use kernels::DeviceMemory;
use kernels::cpu::Cpu;
use runtime::coordinator::ranks::RankGroup as _;
use runtime::device::DeviceOptions;
use runtime::worker::WorkerSettings;

use crate::device::{Fault, Watched};
use crate::group::{Deployment, Setup, Worker, settings};

/// What a block of the small model's cache takes, over all layers.
const BLOCK_BYTES: u64 = 32 << 10;

/// A rank on the device `unit`, which has `bytes` bytes; its cache takes what is there.
fn rank(number: usize, coordinator: SocketAddr, setup: &Setup, device: (u64, &'static str)) -> Worker {
    on(WorkerSettings { kv_blocks: None, ..settings(number, coordinator, setup) }, device)
}

fn on(settings: WorkerSettings, (bytes, unit): (u64, &'static str)) -> Worker {
    Worker::on(settings, move |DeviceOptions { threads, fingerprint_seed, .. }| {
        let cpu = Cpu::new(threads).with_fingerprint_seed(fingerprint_seed);
        let mut device = Watched::of(cpu, Fault::default());
        device.own = Some((DeviceMemory { total: bytes, free: bytes }, unit));
        Ok(device)
    })
}

/// Bytes of each rank's cache.
fn caches(units: [&'static str; 2], bytes: u64) -> Vec<u64> {
    let setup = Setup { ranks: 2, redundancy: 0, ..Setup::default() };
    let mut deployment =
        Deployment::begin(setup, |number, coordinator| rank(number, coordinator, &setup, (bytes, units[number])));
    deployment.wait_for_group();
    let Some(group) = &deployment.group else { panic!("it has formed") };
    group.caches().iter().map(|cache| cache.blocks as u64 * BLOCK_BYTES).collect()
}

#[test]
fn a_cache_takes_its_share_of_the_device_and_of_one_that_is_shared_its_part() {
    let bytes = 512 << 20;
    let apart = caches(["first", "second"], bytes);
    assert!(apart.iter().all(|cache| (bytes / 2..bytes).contains(cache)), "{apart:?}");
    let together = caches(["first", "first"], bytes);
    assert!(together.iter().all(|cache| (bytes / 8..bytes / 2).contains(cache)), "{together:?}");
}

#[test]
fn ranks_that_fit_a_device_alone_and_not_together_are_refused_before_they_load_their_part() {
    let (setup, bytes) = (Setup { ranks: 2, redundancy: 0, ..Setup::default() }, 512 << 20);
    let blocks = (bytes * 6 / 10 / BLOCK_BYTES) as usize;
    let start = |units: [&'static str; 2]| {
        Deployment::begin(setup, move |number, coordinator| {
            let settings = WorkerSettings { kv_blocks: Some(blocks), ..settings(number, coordinator, &setup) };
            on(settings, (bytes, units[number]))
        })
    };
    start(["first", "second"]).wait_for_group();
    let said = start(["first", "first"]).wait_for_failure();
    let free = "and 512.0 MiB of 512.0 MiB are free; give each rank a GPU of its own, or lower kv-blocks";
    let end = format!(" of its device's memory, 307.2 MiB of that for kv-blocks {blocks}, {free}");
    assert!(said.contains(" cannot serve: each of 2 ranks needs ") && said.ends_with(&end), "{said}");
}

#[test]
fn weights_that_a_device_does_not_hold_are_refused_though_its_machine_would_hold_them() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let error = rank(0, nobody, &Setup::default(), (1 << 20, "first")).stop().unwrap_err().to_string();
    assert!(error.starts_with("this rank needs "), "{error}");
    let free = "and 1.0 MiB of 1.0 MiB are free; serve a smaller model, start more ranks, or use a GPU with more";
    assert!(error.ends_with(&format!(" of that for the weights of the model, {free}")), "{error}");
}
