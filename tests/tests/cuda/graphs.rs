//! Steps that generate are graphs: what a step asks of the driver, that no bit depends on it, and how long a graph holds.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kernels::backend::{PageShape, RouterShape};
use kernels::cpu::Cpu;
use kernels::cuda::Cuda;
use kernels::routing::{Copies, GroupShape, LayerRouting, Slot};
use kernels::tensor::WeightKind;
use kernels::{Backend, PageId, Queue, StepArea};
use plan::map::ExpertMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use runtime::fabric::exchange::means::Means;
use runtime::model::forward::StepInput;
use runtime::protocol::{SequenceOutput, SequenceStep};
use tests::emulator::counters::Counters;

use crate::cases::ToldCase;
use crate::links;
use crate::model::{
    Member, Run, Test, Way, alone, counted, counted_host_bytes, counted_if_emulated, held, part, prompts, random_map,
    run, shape, variant,
};
use crate::steps::{HIDDEN, INTERMEDIATE, Numbers, Steps, tokens};

/// The tests of this file.
pub const CASES: &[Test] = &[
    (A_DECODE_STEP, a_decode_step_is_one_launch_waits_once_and_neither_allocates_nor_copies),
    ("graphs_and_buckets_change_no_bit_while_experts_move", graphs_and_buckets_change_no_bit_while_experts_move),
    ("a_graph_holds_for_a_thousand_commits", a_graph_holds_for_a_thousand_commits),
    ("what_was_captured_goes_with_the_memory_that_it_is_of", what_was_captured_goes_with_the_memory_that_it_is_of),
];

/// Whether a test is about what is asked of the driver, which the emulated one counts.
pub fn is_counted(name: &str) -> bool {
    [A_DECODE_STEP, links::A_DECODE_STEP].contains(&name)
}

/// The test of what a step asks of the driver.
const A_DECODE_STEP: &str = "a_decode_step_is_one_launch_waits_once_and_neither_allocates_nor_copies";

/// The test of a driver that captures nothing the first time.
pub const REFUSED: ToldCase = (
    "steps_that_are_not_captured_are_launched_operation_by_operation",
    &[("CUDA_MODEL_FAULTS", "capture@1")],
    steps_that_are_not_captured,
);

/// A step of two sequences that each go on with a token at this position.
fn decode(position: usize) -> [SequenceStep; 2] {
    [part(0, 0, &[7], position, true), part(1, 1, &[5], position, true)]
}

/// A rank alone whose two sequences have read prompts of 8 tokens.
fn ready(has_graphs: bool) -> Result<(ExpertMap, Member)> {
    let (map, mut member) = alone(&variant("base"), has_graphs)?;
    let ids: Vec<u32> = (1..9).collect();
    member.step(&[part(0, 0, &ids, 0, true), part(1, 1, &ids, 0, true)], None)?;
    Ok((map, member))
}

fn a_decode_step_is_one_launch_waits_once_and_neither_allocates_nor_copies() -> Result<()> {
    for has_graphs in [false, true] {
        let (map, mut member) = ready(has_graphs)?;
        // Staging memory: what moves takes it and gives back what it replaces.
        drop(held(&member.checkpoint, &member.arena, &map, member.rank)?);
        // The first is seen, the second captured.
        for position in [8, 9] {
            member.step(&decode(position), None)?;
        }
        for (position, changes) in [(10, false), (11, true), (12, false)] {
            // What a commit brings was received and checked long before.
            let new = changes.then(|| held(&member.checkpoint, &member.arena, &map, member.rank)).transpose()?;
            let (changes, now) = new.map_or((Vec::new(), Vec::new()), |(changes, now)| (changes, now));
            let batch = decode(position);
            let Member { model, workspace, exchange, pages, .. } = &mut member;
            let before = counted()?;
            let mut enqueued = Ok(before);
            let input = StepInput::alone(&batch, changes);
            let (outcome, times) = model.step(input, workspace, &mut **exchange, |_| enqueued = counted())?;
            let (enqueued, after) = (enqueued?, counted()?);
            ensure!(outcome.outputs.iter().all(|output| output.token.is_some()), "every sequence goes on");
            ensure!(!times.experts.is_zero() && times.exchange.is_zero(), "a rank alone takes {times:?}");
            let (launches, kernels) = (after.launches - before.launches, after.kernels - before.kernels);
            ensure!(kernels > 1, "the step is kernels, not the host's");
            ensure!(!has_graphs || launches == 1, "{launches} launches instead of one graph");
            let kind = if has_graphs { "in a graph" } else { "operation by operation" };
            println!("figure: a decode step of 2 layers, {kind}: {launches} launches of {kernels} kernels");
            // Nothing until the result is asked for but launches, and then one wait.
            let graph_launches = before.graph_launches + u64::from(has_graphs);
            let mut unchanged = Counters { launches: after.launches, graph_launches, ..before };
            unchanged.kernels = enqueued.kernels;
            ensure!(enqueued == unchanged, "{before:?} before a step, {enqueued:?} when it is on the queue");
            (unchanged.kernels, unchanged.synchronisations) = (after.kernels, before.synchronisations + 1);
            ensure!(after == unchanged, "{before:?} before a step, {after:?} when it was collected");
            if !now.is_empty() {
                *pages = now;
            }
        }
    }
    Ok(())
}

fn graphs_and_buckets_change_no_bit_while_experts_move() -> Result<()> {
    let folder = variant("base");
    let prompts: Vec<Vec<u32>> = prompts(&folder)?.into_iter().take(3).map(|prompt| prompt.ids).collect();
    let (mut random, shape) = (StdRng::seed_from_u64(2), shape(&folder, 1, 0)?);
    let maps: Vec<ExpertMap> = (0..3).map(|_| random_map(shape, &mut random)).collect::<Result<_>>()?;
    let of = |has_graphs| {
        let way = Way { has_graphs, ..Way::new(Means::Tcp, 1) };
        run(&Run { folder: &folder, maps: &maps, chunk: 7, new: 8, way }, &prompts)
    };
    let (expected, _) = of(false)?;
    if let Some(before) = counted_if_emulated()? {
        ensure!(before.graph_launches == 0 && before.captures == 0, "graphs are off: {before:?}");
    }
    let (found, moved) = of(true)?;
    ensure!(expected == found, "{found:?} instead of {expected:?}");
    if let Some(Counters { graph_launches, captures, .. }) = counted_if_emulated()? {
        ensure!(graph_launches > 0, "no step was a graph");
        println!(
            "figure: with and without graphs: 0 bits differ over {moved} moves, {graph_launches} launches of {captures} graphs"
        );
    }
    Ok(())
}

const LAYERS: usize = 20;
const EXPERTS: usize = 8;
/// One expert has two copies.
const SLOTS: usize = EXPERTS + 1;
/// Tokens of each step, and what it is prepared for.
const TOKENS: usize = 3;
const BUCKET: usize = 4;
/// The layers of which a step does anything.
const LOOKED_AT: [usize; 2] = [0, LAYERS - 1];

/// A layer in which expert `number` modulo all has two copies, and all experts are in other slots than in the layer before.
fn layer(layer: usize, number: usize) -> LayerRouting {
    let twice = number % EXPERTS;
    let slot = |index: usize| Slot { rank: 0, index: ((index + number) % SLOTS) as u32 };
    let (mut copies, mut next) = (Copies::default(), 0);
    for expert in 0..EXPERTS {
        copies.starts.push(copies.slots.len() as u32);
        for copy in 0..=usize::from(expert == twice) {
            copies.slots.push(slot(next));
            copies.bounds.push(if copy == 0 { 0 } else { 1 << 31 });
            next += 1;
        }
    }
    copies.starts.push(copies.slots.len() as u32);
    let pages = (0..SLOTS).map(|index| PageId(((index + number) % SLOTS) as u32)).collect();
    LayerRouting { layer, copies, pages }
}

/// Steps that do no more than route, and what of each slot they count.
struct Routed<B: Backend> {
    steps: Steps<B>,
    logits: B::Buffer<f32>,
    table: B::Lookup,
}

impl<B: Backend> Routed<B> {
    fn new(backend: &Arc<B>) -> Result<Self> {
        let group = GroupShape { ranks: 1, rank: 0, layers: LAYERS, slots: SLOTS, top_k: 2, tokens: BUCKET };
        let page = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind: WeightKind::F32 };
        let steps = Steps::new(backend, group, (0..LAYERS).map(|index| layer(index, 0)).collect(), page)?;
        let (logits, table) = (steps.room()?, steps.table(&Numbers(5).vec(TOKENS * EXPERTS), EXPERTS)?);
        Ok(Self { steps, logits, table })
    }

    /// A step after as many commits.
    fn step(&mut self, number: usize, commits: usize) -> Result<Vec<u32>> {
        let mut area: StepArea = tokens(TOKENS);
        area.bucket = Some(BUCKET);
        for (index, sequence) in area.sequences.iter_mut().enumerate() {
            *sequence = (number * TOKENS + index) as u32;
        }
        area.changes = (0..commits).map(|index| layer(index, number + index)).collect();
        let Steps { queue, batch, slots, .. } = &mut self.steps;
        queue.upload(&area, batch, slots);
        let (queue, state) = (&self.steps.queue, &mut (&mut self.logits, &mut self.steps.batch, &mut self.steps.slots));
        let (table, routing) = (&self.table, &mut self.steps.routing);
        let refused = queue.repeat(
            BUCKET,
            state,
            |state| &mut *state.1,
            |(logits, batch, slots)| {
                queue.begin(batch, slots);
                queue.embed(table, batch, logits);
                for layer in LOOKED_AT {
                    queue.route(logits, RouterShape { experts: EXPERTS, top_k: 2, normalise: true }, routing);
                    queue.choose(batch, slots, layer, routing);
                    queue.sort(slots, layer, routing);
                }
                queue.finish(batch, slots);
                anyhow::Ok(())
            },
        )?;
        ensure!(refused.is_none(), "it is not captured: {refused:?}");
        Ok(queue.collect(&self.steps.batch, &self.steps.slots)?.pairs.into_owned())
    }
}

/// Bytes of the host's memory that a commit has a step read.
fn told_by_a_commit(steps: &mut Routed<Cuda>) -> Result<usize> {
    let mut told = |commits| -> Result<usize> {
        let before = counted_host_bytes()?;
        steps.step(52, commits)?;
        Ok(usize::try_from(counted_host_bytes()? - before)?)
    };
    Ok((told(LAYERS)? - told(0)?) / LAYERS)
}

fn a_graph_holds_for_a_thousand_commits() -> Result<()> {
    let mut specified = Routed::new(&Arc::new(Cpu::new(1)))?;
    let mut computed = Routed::new(&Arc::new(Cuda::new(0)?))?;
    let (mut commits, mut ready) = (0, None);
    for number in 0..52 {
        let (expected, found) = (specified.step(number, LAYERS)?, computed.step(number, LAYERS)?);
        ensure!(expected == found, "step {number}: {found:?} pairs instead of {expected:?}");
        ensure!(found.iter().sum::<u32>() == (LOOKED_AT.len() * TOKENS * 2) as u32, "{found:?}");
        if number == 1 {
            ready = counted_if_emulated()?;
        } else if number > 1 {
            commits += LAYERS;
        }
    }
    if let Some((ready, after)) = ready.zip(counted_if_emulated()?) {
        let asked =
            [after.captures - ready.captures, after.tensor_maps - ready.tensor_maps, after.copies - ready.copies];
        ensure!(asked == [0; 3], "{asked:?} captures, tensor maps and copies");
        ensure!(
            after.launches - ready.launches == 50 && after.allocations == ready.allocations,
            "{ready:?}, {after:?}"
        );
        println!("figure: {commits} commits: 0 captures, 0 tensor maps, 0 copies, 0 allocations");
    }
    ensure!(commits == 1000, "{commits} commits");
    if ready.is_some() {
        let each = told_by_a_commit(&mut computed)?;
        // The layer, which each thread reads, where each expert's copies begin, of each copy its slot and its bound, and of each
        // slot its page.
        let (routing, pages) = (4 * 256 + 4 * (EXPERTS + 1) + 12 * SLOTS, 4 * SLOTS);
        ensure!(each == routing + pages, "a commit of {SLOTS} slots takes {each} bytes");
        println!("figure: a commit: {} bytes a slot for its page", pages / SLOTS);
    }
    Ok(())
}

fn what_was_captured_goes_with_the_memory_that_it_is_of() -> Result<()> {
    let (map, mut member) = ready(true)?;
    let mut given: Vec<Vec<SequenceOutput>> = Vec::new();
    let mut captures = Vec::new();
    // A rank that leaves its group and comes back has other memory for its steps, and a model that it had all the time.
    for again in 0..3 {
        if again > 0 {
            let Member { checkpoint, arena, rank, .. } = &member;
            let (layers, pages) = held(checkpoint, arena, &map, *rank)?;
            let (workspace, _) = Member::workspace(checkpoint, arena, (&map, *rank), layers)?;
            (member.workspace, member.pages) = (workspace, pages);
            let ids: Vec<u32> = (1..9).collect();
            member.step(&[part(0, 0, &ids, 0, true), part(1, 1, &ids, 0, true)], None)?;
        }
        let steps = (8..12).map(|position| member.step(&decode(position), None)).collect::<Result<Vec<_>>>()?;
        let outputs: Vec<SequenceOutput> = steps.into_iter().flatten().collect();
        ensure!(given.first().is_none_or(|first| *first == outputs), "{outputs:?} instead of {given:?}");
        given.push(outputs);
        captures.extend(counted_if_emulated()?.map(|counted| counted.captures));
    }
    ensure!(captures.is_empty() || captures == [1, 2, 3], "each memory has its own: {captures:?}");
    // Memory that is given back anywhere ends what was captured: nobody knows that it is not of it.
    drop(member.arena.backend().buffer::<u32>(1)?);
    member.step(&decode(12), None)?;
    if let Some(Counters { captures, .. }) = counted_if_emulated()? {
        ensure!(captures == 4, "it was captured again");
    }
    Ok(())
}

fn steps_that_are_not_captured() -> Result<()> {
    let run = |has_graphs| -> Result<Vec<Vec<SequenceOutput>>> {
        let (_, mut member) = ready(has_graphs)?;
        (8..12).map(|position| member.step(&decode(position), None)).collect()
    };
    let found = run(true)?;
    let asked = counted()?;
    ensure!((asked.captures, asked.graph_launches) == (0, 0), "the driver captures nothing the first time: {asked:?}");
    let expected = run(false)?;
    ensure!(expected == found, "{found:?} instead of {expected:?}");
    Ok(())
}
