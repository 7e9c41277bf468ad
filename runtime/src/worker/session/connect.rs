//! From a group whose every rank is loaded to this rank's part in it: connections, the exchange over them, the mover, the engine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use kernels::link::LinkShape;
use kernels::{Backend, DeviceError};

use super::{LOOK_INTERVAL, Loaded, NextGroup, Part, Session, SessionError};
use crate::cancel::Cancel;
use crate::engine::{self, Membership, StepPath};
use crate::experts::mover::{CountPage, Mover, MoverSetup, Near, Serving};
use crate::fabric::exchange::device::PATIENCE;
use crate::fabric::exchange::form::{self, Formed, Forming};
use crate::fabric::framing::CONNECT_TIMEOUT;
use crate::fabric::handshake::call;
use crate::fabric::mesh::{Dissolver, Largest, Mesh, MeshSetup};
use crate::fabric::purpose::Purpose;
use crate::model::forward::expert_shape;
use crate::protocol::FromRank;
use crate::worker::Worker;
use crate::worker::control::Control;
use crate::worker::metrics::WorkerMetrics;

/// How long the other ranks may take to connect when all are loaded.
const MESH_TIMEOUT: Duration = Duration::from_mins(2);

impl<B: Backend> Session<B> {
    /// Becomes part of a group whose every rank is loaded.
    pub(super) fn connect(
        &mut self,
        worker: &mut Worker<B>,
        loaded: Loaded<B>,
        fingerprints: Vec<Option<u128>>,
        control: &Control,
    ) -> Result<(), SessionError> {
        let Loaded { next, means, experts, shape, workspace, routing, pages } = loaded;
        let NextGroup { group, secret, ranks, epoch, move_bytes_per_second, step_tokens } = next;
        let (rank, config) = (worker.settings.rank, worker.checkpoint.config());
        let largest = Largest::of_step(step_tokens as usize, config.router.top_k, config.hidden);
        let largest = Largest { indices: largest.indices.max(form::INDICES), ..largest };
        let serving = Serving { group, secret: secret.clone(), rank, ranks: ranks.len(), pages: Arc::clone(&pages) };
        worker.server.set(Some(serving));
        let (neighbours, number) = (&worker.settings.neighbours, ranks.len());
        Near::share(neighbours, (group, rank), &pages);
        let mesh = MeshSetup { group, secret: &secret, rank, ranks: &ranks, largest };
        let fabric = Mesh::connect(mesh, &worker.steps, MESH_TIMEOUT, &control.gone)?;
        let purpose = (Purpose::Steps { group, rank }, &secret);
        let steps = call(&worker.settings.coordinator, "the coordinator", purpose, CONNECT_TIMEOUT)?;
        let (dissolver, closer) = (fabric.dissolver()?, steps.closer()?);
        let page = expert_shape(&worker.checkpoint);
        let forming = Forming {
            device: &*worker.device,
            neighbours,
            group,
            shape: LinkShape { group: shape, page },
            possible: &means,
            patience: PATIENCE,
        };
        let formed = while_connected(&control.gone, &dissolver, || forming.form(fabric))?;
        let Formed { exchange, means, closer: waits } = formed?;
        let bytes_per_second = move_bytes_per_second.map_or_else(|| usual_rate(&*worker.device), Ok)?;
        // All have shared theirs before they said by which means they exchange rows.
        let near = Near::find(neighbours, (group, rank), number, &pages);
        let setup = MoverSetup {
            group,
            secret,
            rank,
            ranks,
            pages: Arc::clone(&pages),
            near,
            load_page: worker.weights.load_page(),
            count_page: count_page(&worker.metrics),
            bytes_per_second,
            reports: control.reports.clone(),
            threads: worker.threads.clone(),
            faults: worker.settings.faults,
        };
        let (mover, incoming) = Mover::start(setup)?;
        let generation = group.generation;
        let path = StepPath { exchange, steps };
        let exit = engine::Exit { closer: control.closer.share()?, reports: control.reports.clone() };
        let membership = Membership::new(generation, (workspace, routing), path, Arc::clone(&pages), incoming);
        let ended = worker.weights.engine().join(membership, exit);
        // From now on the group's pages know what is held; what is kept here would never become staging memory.
        worker.weights.held.clear();
        self.part =
            Some(Part { generation, experts, fingerprints, pages, mover, dissolver, waits, steps: closer, ended });
        self.ready = true;
        worker.metrics.formed(true);
        worker.metrics.exchanges_by(means);
        let by = means.map_or("nothing", Into::into);
        tracing::info!(generation, epoch, exchange = by, move_bytes_per_second = bytes_per_second, "part of a group");
        // As in `load`.
        let _ = control.reports.send(FromRank::Ready { generation, exchange: means });
        Ok(())
    }
}

/// Bytes per second at which pages arrive where nobody says how fast they may, 0 for no limit: what no step feels. Steps are as fast as
/// the memory that they read, of which arriving pages then take a hundredth; on CPUs a page is copied between steps' own threads, and is
/// there the sooner the less it waits.
fn usual_rate<B: Backend>(device: &B) -> Result<u64, DeviceError> {
    Ok(device.bandwidth()?.map_or(0, |bandwidth| (bandwidth / 100.0).max(1.0) as u64))
}

/// Does what waits for other ranks, which it does no more once the coordinator is gone.
fn while_connected<T>(gone: &Cancel, dissolver: &Dissolver, work: impl FnOnce() -> T) -> io::Result<T> {
    let (finished, done) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let watch = move || {
            while done.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if gone.is_cancelled() {
                    dissolver.dissolve();
                    return;
                }
            }
        };
        std::thread::Builder::new().name("forming".to_owned()).spawn_scoped(scope, watch)?;
        let _finished = finished;
        Ok(work())
    })
}

fn count_page(metrics: &WorkerMetrics) -> CountPage {
    let metrics = metrics.clone();
    Arc::new(move |route| metrics.received(route))
}
