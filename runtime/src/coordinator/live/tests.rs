//! What is told of what happens, at times that the tests choose.

use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::moves::SlotChange;
use plan::wire::{Happening, MovedExpert};

use super::*;
use crate::coordinator::metrics::DriverMetrics;
use crate::protocol::{StepTiming, TransactionId};

const SHAPE: MapShape = MapShape { layers: 2, experts: 4, ranks: 2, slots_per_rank: 2 };

fn begun() -> (Writer, Live, Instant) {
    let start = Instant::now();
    let model = ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 2, experts: 4 };
    let metrics = DriverMetrics::new(&prometheus::Registry::new(), 2).unwrap();
    let (writer, live) = live(model, (SHAPE, 0), metrics.counters(), start);
    (writer, live, start)
}

fn told(live: &Live, now: Instant, after: u64) -> MonitorDocument {
    live.document(now, after, Health::Serving)
}

fn answers(pairs: [[u32; 4]; 2]) -> Vec<StepDone> {
    let answer = |pairs: [u32; 4]| StepDone {
        generation: 1,
        number: 1,
        outputs: Vec::new(),
        slot_pairs: pairs.into_iter().collect(),
        timing: StepTiming::default(),
    };
    pairs.map(answer).into()
}

/// A step as the driver hands it over, if anybody hears.
fn step(writer: &Writer, at: Instant, tokens: Tokens) {
    if writer.is_heard(at) {
        let answers = answers([[1, 2, 3, 4], [10, 20, 30, 40]]);
        writer.stepped(Step { at, took: millis(5), answers, tokens });
    }
}

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn pairs_of_ranks_are_counted_by_layer_while_somebody_asks() {
    let (writer, live, start) = begun();
    step(&writer, start, Tokens::default());
    assert_eq!(told(&live, start, 0).pairs, [[0, 0], [0, 0]], "nobody had asked");
    step(&writer, start + millis(100), Tokens::default());
    step(&writer, start + millis(200), Tokens::default());
    let late = start + HEARD_FOR;
    step(&writer, late, Tokens::default());
    assert_eq!(told(&live, late, 0).pairs, [[6, 60], [14, 140]], "and nobody asked for a while");
    step(&writer, late + millis(1999), Tokens::default());
    assert_eq!(told(&live, late, 0).pairs, [[9, 90], [21, 210]]);
}

#[test]
fn latencies_are_those_of_the_last_ten_seconds() {
    let (writer, live, start) = begun();
    told(&live, start, 0);
    let first = |took: u64| Tokens { first: vec![millis(took)], next: Vec::new() };
    (1..=100).for_each(|took| step(&writer, start + millis(took * 10), first(took)));
    let within = |found: f64, expected: f64| (found - expected).abs() <= expected * 0.01;
    let told_first = |now| told(&live, now, 0).latency.first_token;
    let spread = told_first(start + millis(1100)).unwrap();
    assert_eq!(spread.count, 100);
    assert!(within(spread.p50, 0.05) && within(spread.p90, 0.09) && within(spread.p99, 0.099), "{spread:?}");
    assert!(within(spread.most, 0.1), "{spread:?}");
    assert_eq!(told_first(start + millis(9999)).unwrap().count, 100);
    let last = "the first second is over, the last of it was in the next";
    assert_eq!(told_first(start + millis(10_500)).unwrap().count, 1, "{last}");
    assert_eq!(told_first(start + millis(11_000)), None);
    // A year later there is nothing, and what comes then is told.
    let late = start + Duration::from_hours(8760);
    told(&live, late, 0);
    step(&writer, late, Tokens { first: Vec::new(), next: vec![millis(3), Duration::from_hours(25)] });
    let latency = told(&live, late, 0).latency;
    assert_eq!((latency.first_token, latency.inter_token.unwrap().count), (None, 2));
    assert!(latency.over_seconds >= 9.0 && latency.over_seconds < 10.0, "{latency:?}");
}

#[test]
fn steps_that_nobody_takes_are_bounded() {
    let (writer, live, start) = begun();
    told(&live, start, 0);
    (0..STEPS_AT_MOST + 10).for_each(|_| step(&writer, start, Tokens::default()));
    assert_eq!(told(&live, start, 0).pairs[0][0], 3 * STEPS_AT_MOST as u64);
}

#[test]
fn what_happened_is_told_after_a_number_and_all_of_it_to_who_knew_another_process() {
    let (writer, live, start) = begun();
    writer.formed(start, 1);
    let change = |rank, source, to| SlotChange {
        rank: RankId(rank),
        slot: SlotIndex(0),
        from: ExpertId(0),
        to: ExpertId(to),
        source: RankId(source),
    };
    let changes = vec![change(1, 0, 3), change(1, 1, 2)];
    let (transaction, layer) = (TransactionId(1), LayerId(1));
    let notice = Notice::Committed { transaction, layer, epoch: 4, pages: 1, bytes: 10, changes };
    writer.noticed(start + millis(500), notice, &MoveTotals { committed: 1, ..MoveTotals::default() });
    let numbers = |after| told(&live, start, after).events.iter().map(|event| event.number).collect::<Vec<_>>();
    assert_eq!([numbers(0), numbers(1), numbers(2), numbers(3)], [vec![1, 2], vec![2], vec![], vec![1, 2]]);
    let mut document = told(&live, start, 1);
    assert_eq!((document.epoch, document.moves.committed, document.generation), (4, 1, 1));
    let event = document.events.remove(0);
    let moved = vec![MovedExpert { expert: 3, from: 0, to: 1 }];
    assert_eq!(event.what, Happening::Committed { layer: 1, epoch: 4, bytes: 10, moved });
    assert!((event.seconds - 0.5).abs() < 1e-9);
}

#[test]
fn the_oldest_events_are_given_up() {
    let (writer, live, start) = begun();
    (0..EVENTS_KEPT as u64 + 3).for_each(|generation| writer.formed(start, generation));
    let events = told(&live, start, 0).events;
    assert_eq!((events.len(), events[0].number), (EVENTS_KEPT, 4));
}

#[test]
fn why_requests_are_not_served_is_told() {
    let (_writer, live, start) = begun();
    let document = live.document(start, 0, Health::NotFormed { reason: "the ranks are loading".to_owned() });
    assert_eq!((document.ready, document.reason.as_deref()), (false, Some("the ranks are loading")));
    assert!(told(&live, start, 0).ready);
}

/// What ten answers a second cost of a core for a model of 94 layers on 16 ranks that runs 50 steps a second: less than 1 %.
#[test]
fn ten_answers_a_second_cost_less_than_a_hundredth_of_a_core() {
    let shape = MapShape { layers: 94, experts: 128, ranks: 16, slots_per_rank: 9 };
    let start = Instant::now();
    let model = ModelIdentity { name: "large".to_owned(), digest: "abc".to_owned(), layers: 94, experts: 128 };
    let metrics = DriverMetrics::new(&prometheus::Registry::new(), 16).unwrap();
    let (writer, live) = live(model, (shape, 0), metrics.counters(), start);
    let answer = StepDone {
        generation: 1,
        number: 1,
        outputs: Vec::new(),
        slot_pairs: (0..shape.layers as u32 * 9).collect(),
        timing: StepTiming::default(),
    };
    let thread_time = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (mut spent, mut bytes) = (Duration::ZERO, 0);
    let answers = 50;
    for number in 0..answers {
        let at = start + millis(100 * number);
        for _ in 0..5 {
            let tokens = Tokens { first: vec![millis(80); 2], next: vec![millis(20); 256] };
            writer.stepped(Step { at, took: millis(20), answers: vec![answer.clone(); 16], tokens });
        }
        let before = thread_time();
        bytes = serde_json::to_vec(&told(&live, at, 0)).unwrap().len();
        spent += thread_time().saturating_sub(before);
    }
    let part = spent.as_secs_f64() / f64::from(answers as u32) * 10.0;
    println!("ten answers a second, of {bytes} bytes each, cost {:.2} % of a core", part * 100.0);
    // Without optimisation everything takes several times as long.
    let most = if cfg!(debug_assertions) { 0.05 } else { 0.01 };
    assert!(part < most, "{part}");
}
