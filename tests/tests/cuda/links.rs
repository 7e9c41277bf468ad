//! Exchanges among GPUs: the same bits as through the hosts, with no host in between, and an end to every wait.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use plan::map::ExpertMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use runtime::fabric::exchange::means::Means;
use runtime::fabric::in_process::{self, InProcess};
use runtime::fabric::{Fabric as _, FabricError};
use runtime::model::forward::{ForwardError, StepInput};
use tests::emulator::counters::Counters;

use crate::cases::GPUS;
use crate::model::{FORCED_MOVES, Member, Run, Test, Way, counted, part, prompts, random_map, run, shape, variant};

/// The test of what a step asks of the driver.
pub const A_DECODE_STEP: &str = "a_decode_step_over_a_link_is_one_launch_and_waits_once";

/// The tests of this file that one GPU is enough for.
pub const ON_ONE_GPU: &[Test] = &[
    ("ranks_that_share_a_gpu_change_no_bit_by_peer", ranks_that_share_a_gpu_change_no_bit),
    ("a_rank_that_does_not_come_to_a_gpu_that_it_shares_is_given_up", a_rank_that_does_not_come_to_a_shared_gpu),
    ("a_wait_on_a_shared_gpu_for_another_rank_ends_with_its_group", a_wait_on_a_shared_gpu_ends_with_its_group),
];

/// Those that need two.
pub const ON_TWO_GPUS: &[Test] = &[
    ("no_exchange_by_peer_changes_a_bit", no_exchange_by_peer_changes_a_bit),
    (A_DECODE_STEP, a_decode_step_over_a_link_waits_once),
    ("a_rank_that_does_not_come_is_given_up_and_the_next_group_serves", a_rank_that_does_not_come_is_given_up),
    ("a_rank_that_is_gone_ends_an_exchange_before_its_time", a_rank_that_is_gone_ends_an_exchange_before_its_time),
    ("a_wait_for_another_rank_ends_with_its_group", a_wait_for_another_rank_ends_with_its_group),
];

/// Those that need [`GPUS`].
pub const ON_ALL_GPUS: &[Test] = &[("no_exchange_by_nccl_changes_a_bit", no_exchange_by_nccl_changes_a_bit)];

fn ranks_that_share_a_gpu_change_no_bit() -> Result<()> {
    no_way_of_exchanging_rows_changes_a_bit(&[(2, 0, 64, Way::new(Means::Peer, 1))], 1)
}

fn no_exchange_by_peer_changes_a_bit() -> Result<()> {
    let ways = [(2, 2, 9, Way::new(Means::Peer, 2)), (4, 4, 7, Way::new(Means::Peer, 2))];
    no_way_of_exchanging_rows_changes_a_bit(&ways, FORCED_MOVES)
}

fn no_exchange_by_nccl_changes_a_bit() -> Result<()> {
    let ways = [
        (2, 0, 64, Way::new(Means::Nccl, GPUS)),
        (2, 2, 9, Way { has_graphs: false, ..Way::new(Means::Nccl, GPUS) }),
        (4, 4, 7, Way::new(Means::Nccl, GPUS)),
    ];
    no_way_of_exchanging_rows_changes_a_bit(&ways, FORCED_MOVES)
}

/// What runs with more seeds than any other: two ranks whose kernels exchange rows, and experts that move.
pub const WITH_MANY_SEEDS: (&str, u64, fn() -> Result<()>) =
    ("no_order_of_two_ranks_that_exchange_rows_changes_a_bit", 100, no_order_changes_a_bit);

fn no_order_changes_a_bit() -> Result<()> {
    let folder = variant("base");
    let prompts: Vec<Vec<u32>> =
        prompts(&folder)?.into_iter().take(2).map(|prompt| prompt.ids.into_iter().take(5).collect()).collect();
    let plain = [ExpertMap::contiguous(shape(&folder, 1, 0)?)?];
    let alone = Run { folder: &folder, maps: &plain, chunk: 5, new: 2, way: Way::new(Means::Tcp, 1) };
    let (expected, _) = run(&alone, &prompts)?;
    let (shape, mut random) = (shape(&folder, 2, 2)?, StdRng::seed_from_u64(5));
    let maps: Vec<ExpertMap> = (0..2).map(|_| random_map(shape, &mut random)).collect::<Result<_>>()?;
    let way = Way::new(Means::Peer, 2);
    let (found, moved) = run(&Run { folder: &folder, maps: &maps, chunk: 3, new: 2, way }, &prompts)?;
    ensure!(expected == found && moved > 0, "{moved} moves: {found:?} instead of {expected:?}");
    Ok(())
}

/// Ranks, slots more than experts, most tokens of a step, and how rows are exchanged; and how many moves are the least.
fn no_way_of_exchanging_rows_changes_a_bit(ways: &[(usize, usize, usize, Way)], least: usize) -> Result<()> {
    let (mut random, mut total) = (StdRng::seed_from_u64(2), 0);
    for name in ["base", "tied_f32"] {
        let folder = variant(name);
        let prompts: Vec<Vec<u32>> = prompts(&folder)?.into_iter().take(3).map(|prompt| prompt.ids).collect();
        let plain = [ExpertMap::contiguous(shape(&folder, 1, 0)?)?];
        let alone = Run { folder: &folder, maps: &plain, chunk: 64, new: 7, way: Way::new(Means::Tcp, 1) };
        let (expected, _) = run(&alone, &prompts)?;
        for (ranks, redundancy, chunk, way) in ways.iter().cloned() {
            let shape = shape(&folder, ranks, redundancy)?;
            let maps: Vec<ExpertMap> = (0..3).map(|_| random_map(shape, &mut random)).collect::<Result<_>>()?;
            let (means, gpus) = (way.means, way.gpus);
            let (found, moved) = run(&Run { folder: &folder, maps: &maps, chunk, new: 7, way }, &prompts)?;
            ensure!(
                expected == found,
                "{name}, {ranks} ranks by {means} on {gpus} GPUs: {found:?} instead of {expected:?}"
            );
            total += moved;
        }
    }
    ensure!(total >= least, "{total} forced moves");
    println!("figure: rows by {}: 0 bits differ over {total} forced moves", ways[0].3.means);
    Ok(())
}

/// What each of two ranks does, each in its thread; the first that fails says why.
fn on_two_ranks(work: impl Fn(usize, InProcess) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = in_process::connect(2)
            .into_iter()
            .map(|fabric| scope.spawn(move || work(fabric.rank().index(), fabric)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a rank panicked"))?)
    })
}

fn pair(folder: &Path) -> Result<ExpertMap> {
    Ok(ExpertMap::contiguous(shape(folder, 2, 0)?)?)
}

fn a_decode_step_over_a_link_waits_once() -> Result<()> {
    [Means::Peer, Means::Nccl].into_iter().try_for_each(a_decode_step_waits_once)
}

fn a_decode_step_waits_once(means: Means) -> Result<()> {
    let (folder, together) = (variant("base"), Barrier::new(2));
    let (map, way) = (pair(&folder)?, Way::new(means, 2));
    on_two_ranks(|rank, fabric| {
        let mut member = Member::new(&folder, &map, fabric, &way)?;
        let ids: Vec<u32> = (1..9).collect();
        member.step(&[part(rank, 0, &ids, 0, true)], None)?;
        for position in 8..13 {
            let batch = [part(rank, 0, &[7], position, true)];
            let Member { model, workspace, exchange, .. } = &mut member;
            let count = || -> Result<Counters> {
                together.wait();
                let now = counted();
                together.wait();
                now
            };
            let before = count()?;
            let mut enqueued = Ok(before);
            model.step(StepInput::alone(&batch, Vec::new()), workspace, &mut **exchange, |_| enqueued = count())?;
            let (enqueued, after) = (enqueued?, count()?);
            // The first is seen, the second captured.
            if position < 10 {
                continue;
            }
            // Kernels run as they come.
            let but_launches = |counters: Counters| Counters { launches: 0, kernels: 0, graph_launches: 0, ..counters };
            ensure!(but_launches(enqueued) == but_launches(before), "{before:?} before, {enqueued:?} on the queue");
            let waited = Counters { synchronisations: before.synchronisations + 2, ..before };
            ensure!(but_launches(after) == but_launches(waited), "{before:?} before, {after:?} when it was collected");
            let launches = [after.launches - before.launches, after.graph_launches - before.graph_launches];
            ensure!(launches == [2; 2], "{launches:?} launches and graphs of two ranks' steps by {means}");
        }
        Ok(())
    })
}

/// What ends a step of a rank whose group's other rank makes none, and stays in the group meanwhile or leaves it.
fn silent(
    folder: &Path,
    (way, stays): (&Way, bool),
    meanwhile: impl Fn(&Member) -> Result<()> + Sync,
) -> Result<(FabricError, Duration)> {
    let (map, over, ended) = (pair(folder)?, Barrier::new(2), std::sync::Mutex::new(None));
    on_two_ranks(|rank, fabric| {
        let member = Member::new(folder, &map, fabric, way);
        let mut held = None;
        let outcome = match (rank, member) {
            (0, Ok(mut member)) => {
                let started = Instant::now();
                meanwhile(&member)?;
                let Member { model, workspace, exchange, .. } = &mut member;
                let batch = [part(0, 0, &[1, 2], 0, true)];
                let error = model.step(StepInput::alone(&batch, Vec::new()), workspace, &mut **exchange, drop);
                match error {
                    Err(ForwardError::Fabric(error)) => {
                        *ended.lock().map_err(|_| anyhow!("a rank panicked"))? = Some((error, started.elapsed()));
                        Ok(())
                    }
                    Err(error) => Err(error.into()),
                    Ok(_) => Err(anyhow!("a step without the other rank is none")),
                }
            }
            (_, member) => member.map(|member| held = Some(member).filter(|_| stays)),
        };
        over.wait();
        drop(held);
        outcome
    })?;
    ended.into_inner().map_err(|_| anyhow!("a rank panicked"))?.context("a step that ended")
}

fn a_rank_that_does_not_come_to_a_shared_gpu() -> Result<()> {
    who_does_not_come_is_given_up(&[(Means::Peer, 1, "rank 1 gave no rows within 2 s")])
}

fn a_rank_that_does_not_come_is_given_up() -> Result<()> {
    who_does_not_come_is_given_up(&[
        (Means::Peer, 2, "rank 1 gave no rows within 2 s"),
        (Means::Nccl, 2, "another rank gave no rows within 2 s"),
    ])
}

fn who_does_not_come_is_given_up(ways: &[(Means, usize, &str)]) -> Result<()> {
    let folder = variant("base");
    for &(means, gpus, said) in ways {
        let way = Way { patience: Duration::from_secs(2), ..Way::new(means, gpus) };
        let (error, after) = silent(&folder, (&way, true), |_| Ok(()))?;
        ensure!(error.to_string().starts_with(said), "{error}");
        ensure!(after >= way.patience, "given up after {after:?}");
        // The next group of the same ranks.
        let map = pair(&folder)?;
        on_two_ranks(|rank, fabric| {
            let way = Way { neighbours: way.neighbours.clone(), ..Way::new(means, gpus) };
            let outputs = Member::new(&folder, &map, fabric, &way)?.step(&[part(rank, 0, &[1, 2], 0, true)], None)?;
            ensure!(outputs[0].token.is_some(), "it serves");
            Ok(())
        })?;
    }
    Ok(())
}

fn a_rank_that_is_gone_ends_an_exchange_before_its_time() -> Result<()> {
    let way = Way::new(Means::Nccl, 2);
    let (error, after) = silent(&variant("base"), (&way, false), |_| Ok(()))?;
    ensure!(matches!(error, FabricError::Ended { .. }), "{error}");
    ensure!(after < way.patience, "it ended after {after:?}");
    Ok(())
}

fn a_wait_on_a_shared_gpu_ends_with_its_group() -> Result<()> {
    waits_end_with_their_group(&[(Means::Peer, 1)])
}

fn a_wait_for_another_rank_ends_with_its_group() -> Result<()> {
    waits_end_with_their_group(&[(Means::Peer, 2), (Means::Nccl, 2)])
}

fn waits_end_with_their_group(ways: &[(Means, usize)]) -> Result<()> {
    for &(means, gpus) in ways {
        let way = Way::new(means, gpus);
        let (error, after) = silent(&variant("base"), (&way, true), |member| {
            member.closer.as_ref().context("what ends the waits")?();
            Ok(())
        })?;
        ensure!(matches!(error, FabricError::Dissolved), "{means}: {error}");
        ensure!(after < way.patience, "{means}: it ended after {after:?}");
    }
    Ok(())
}
