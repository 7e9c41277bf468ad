//! The picture and the lines, made of documents that the tests write.

use plan::wire::{Happening, MonitorEvent};
use ratatui::backend::TestBackend;

use super::*;

/// The released document, as of a coordinator with so many ranks.
fn document(ranks: usize) -> MonitorDocument {
    let json = include_bytes!("../../../plan/tests/documents/0.1.0/monitor.json");
    let mut document = MonitorDocument::from_json(json).unwrap();
    document.pairs = vec![vec![0; ranks]; 2];
    document
}

/// The same two seconds later: rank 1 computes most, the others alike.
fn later(ranks: usize) -> MonitorDocument {
    let mut document = document(ranks);
    document.seconds += 2.0;
    document.steps += 100;
    document.completion_tokens += 1000;
    for layer in &mut document.pairs {
        for pairs in layer.iter_mut() {
            *pairs += 100;
        }
        layer[1] += 60;
    }
    document.events =
        vec![MonitorEvent { number: 17, seconds: 754.0, what: Happening::Window { number: 8, steps: 1, ratio: 0.71 } }];
    document
}

fn seen(ranks: usize) -> View {
    let mut view = View::default();
    view.take(document(ranks));
    view.take(later(ranks));
    view
}

fn drawn(view: &View, (width, height): (u16, u16), look: &Look) -> TestBackend {
    let mut terminal = ratatui::Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| frame::draw(frame, view, look, false)).unwrap();
    terminal.backend().clone()
}

fn look(is_wide: bool, colours: bool) -> Look {
    Look { title: "tiny-moe".to_owned(), is_wide, colours }
}

#[test]
fn a_small_terminal_shows_load_balance_latency_decision_and_what_happened() {
    insta::assert_snapshot!(drawn(&seen(4), (100, 32), &look(false, true)));
}

#[test]
fn a_terminal_of_the_usual_size_has_room_for_all_of_it() {
    insta::assert_snapshot!(drawn(&seen(4), (80, 24), &look(false, true)));
}

#[test]
fn many_ranks_are_beside_each_other_and_more_are_the_busiest() {
    insta::assert_snapshot!(drawn(&seen(32), (160, 40), &look(true, true)));
    let text = drawn(&seen(512), (80, 24), &look(false, true)).to_string();
    assert!(text.contains("of 512 ranks") && text.contains("   1 █"), "{text}");
}

#[test]
fn no_size_is_too_small_or_too_large() {
    for width in [0, 1, 5, 13, 40, 300] {
        for height in [0, 1, 2, 3, 7, 12, 100] {
            for ranks in [1, 2, 512] {
                let view = if ranks == 1 { View::default() } else { seen(ranks) };
                drawn(&view, (width, height), &look(true, false));
            }
        }
    }
}

#[test]
fn without_colours_there_is_none() {
    let coloured = |colours| {
        let backend = drawn(&seen(4), (80, 24), &look(false, colours));
        let cells = backend.buffer().content().iter();
        cells.filter(|cell| cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 100);
}

#[test]
fn loads_and_rates_are_those_of_the_seconds_between_documents() {
    let view = seen(4);
    let load = view.load().unwrap();
    assert_eq!(load.busiest().0, 1);
    let mean = 460.0 / 4.0;
    assert!((load.busiest().1 - 160.0 / mean).abs() < 1e-9 && (load.ratio - mean / 160.0).abs() < 1e-9, "{load:?}");
    let rates = view.rates().unwrap();
    assert_eq!((rates.steps, rates.completion_tokens), (50.0, 500.0));
    assert_eq!(view.known(), 17);
    assert_eq!(view.ratios().len(), 2, "that of a window before, and that of now");
}

#[test]
fn a_gain_that_is_no_gain_has_no_sign_and_a_loss_has_one() {
    let mut report = document(4).decision.unwrap();
    (report.figures.lasting_gain, report.figures.time_saved) = (-1e-6, -0.0125);
    (report.figures.seconds_saved, report.figures.pages) = (-0.002, 1);
    let told = lines::decision(&report);
    assert_eq!(told[1], "gain 0.0000 over its life, of at least 0.0200; saves -1.25 % of experts' time");
    assert!(told[2].starts_with("1 page, 6.29 MB; saves -2.0 ms and costs 25.0 ms"), "{told:?}");
}

#[test]
fn another_process_begins_anew() {
    let mut view = seen(4);
    let mut other = document(4);
    (other.seconds, other.steps) = (1.0, 3);
    other.events.truncate(1);
    view.take(other);
    assert_eq!((view.load(), view.rates(), view.events().len(), view.known()), (None, None, 1, 7));
}

#[test]
fn where_nothing_is_computed_nothing_is_divided() {
    let mut view = View::default();
    view.take(document(4));
    let mut idle = document(4);
    idle.seconds += 1.0;
    view.take(idle);
    assert_eq!(view.load(), None);
    assert!(drawn(&view, (80, 24), &look(false, true)).to_string().contains("nothing has been computed lately"));
}

#[test]
fn who_does_not_answer_is_told_in_the_picture_until_it_does() {
    let mut view = seen(4);
    view.fail("connection refused".to_owned());
    let told = |view: &View| drawn(view, (80, 24), &look(false, true)).to_string().contains("trying again: connection");
    assert!(told(&view));
    view.take(later(4));
    assert!(!told(&view));
}

#[test]
fn where_there_is_no_screen_what_happens_is_told_once_in_lines() {
    let (mut view, mut lines) = (View::default(), Lines::default());
    view.take(document(4));
    let first = lines.of(&view);
    assert_eq!(lines.of(&view), "", "nothing is told twice");
    view.take(later(4));
    insta::assert_snapshot!(first + &lines.of(&view));
}
