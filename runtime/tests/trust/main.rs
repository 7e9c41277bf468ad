//! A group on a network that is not friendly: strangers on every port, recordings of members, members that are not of this
//! group. Whatever they do, the ranks serve the same tokens, and one that is lost comes back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod attack;
#[path = "../group/mod.rs"]
mod group;
mod poison;
mod process;
mod recording;
mod strangers;

use std::sync::{Mutex, MutexGuard, PoisonError};

use group::{Deployment, Moves, Sequence, Setup, advance_ahead};

/// Steps of each sequence.
const STEPS: usize = 30;

/// Tests that look at what their process has open run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    process::listen_to_the_log();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn two_ranks() -> Setup {
    Setup { ranks: 2, redundancy: 2, ..Setup::default() }
}

/// Two ranks between which experts move every few steps.
fn moving() -> Setup {
    Setup { moves: Some(Moves { every: 4, seed: 1, patient: false }), ..two_ranks() }
}

fn sequences(setup: &Setup) -> Vec<Sequence> {
    (0..8).map(|number| Sequence::new(setup, number, (number..number + 20).collect(), 0.0)).collect()
}

/// Runs steps until every sequence has its tokens, forming the group again whenever it is lost.
fn serve(deployment: &mut Deployment, mut sequences: Vec<Sequence>) -> Vec<Vec<u32>> {
    while sequences[0].output().len() < STEPS {
        if !advance_ahead(deployment, &mut sequences) {
            deployment.wait_for_group();
            sequences.iter_mut().for_each(Sequence::forget);
        }
    }
    // Whatever is served next gives other answers than the step that is still under way.
    deployment.receive_all();
    sequences.iter().map(|sequence| sequence.output().to_vec()).collect()
}

/// What the sequences give where nobody disturbs them.
fn undisturbed() -> Vec<Vec<u32>> {
    let setup = two_ranks();
    serve(&mut Deployment::start(setup), sequences(&setup))
}
