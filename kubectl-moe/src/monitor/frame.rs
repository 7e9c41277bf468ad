//! What is known of a coordinator as a picture for a terminal of any size. Pure.

use plan::wire::{Happening, MonitorDocument, MonitorEvent, Quantiles};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};

use super::lines::{clock, decision, of_event, state};
use super::view::{Load, View};
use crate::words::{bytes, counted, seconds};

/// How it is to look.
pub(super) struct Look {
    /// Whose picture it is.
    pub title: String,
    /// Whether steps and stalls are shown too.
    pub is_wide: bool,
    pub colours: bool,
}

/// A rank of so many times the mean load is busy, and of so many too busy.
const BUSY: f64 = 1.1;
const TOO_BUSY: f64 = 1.3;
/// Columns of a rank's bar with its words, at least.
const BAR_WIDTH: u16 = 30;
/// Lines of the part about balance, and of that about latency.
const BALANCE: u16 = 9;
const LATENCY: u16 = 6;
/// A picture of fewer lines has less of everything, so that what happened has room too.
const SMALL: u16 = 30;

impl Look {
    fn coloured(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// For what is not well. Without colours it is bold.
    fn alarming(&self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn block(&self, title: &str) -> Block<'static> {
        Block::bordered().title(format!(" {title} ")).border_style(self.coloured(Color::DarkGray))
    }

    fn of_load(&self, times: f64) -> Style {
        match times {
            TOO_BUSY.. => self.alarming(),
            BUSY.. => self.coloured(Color::Yellow),
            _ => self.coloured(Color::Green),
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &View, look: &Look, is_held: bool) {
    let Some(document) = view.last() else { return };
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(heading(document, view, look), head);
    let keys = if is_held { "held; space goes on, q ends" } else { "space holds, q ends" };
    frame.render_widget(Line::styled(keys, look.coloured(Color::DarkGray)), foot);
    let ranks = document.pairs.first().map_or(0, Vec::len);
    let is_small = body.height < SMALL;
    let (of_balance, of_decision) = if is_small { (BALANCE - 3, 4) } else { (BALANCE, 6) };
    let of_latency = if look.is_wide { LATENCY + 2 } else { LATENCY };
    let wanted = u16::try_from(ranks).unwrap_or(u16::MAX).saturating_add(2).max(of_balance + of_latency);
    let top = wanted.min(if is_small { of_balance + of_latency } else { body.height * 2 / 3 }).min(body.height);
    let [figures, words] = Layout::vertical([Constraint::Length(top), Constraint::Min(0)]).areas(body);
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [left, right] = Layout::horizontal(halves).areas(figures);
    loads(frame, left, view, look, ranks);
    let [balance_area, latency_area] =
        Layout::vertical([Constraint::Length(of_balance.min(top)), Constraint::Min(0)]).areas(right);
    balance(frame, balance_area, document, view, look);
    latency(frame, latency_area, document, view, look);
    let [why, what] =
        Layout::vertical([Constraint::Length(of_decision.min(words.height)), Constraint::Min(0)]).areas(words);
    reasons(frame, why, document, look);
    happenings(frame, what, view, look);
}

fn heading(document: &MonitorDocument, view: &View, look: &Look) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let style = if document.ready { look.coloured(Color::Green) } else { look.alarming() };
    let model = Some(&document.model.name).filter(|name| **name != look.title);
    let model = model.map_or_else(String::new, |name| format!("  {name}"));
    let mut spans = vec![
        Span::styled(look.title.clone(), bold),
        Span::raw(format!("{model}  {}  ", clock(document.seconds))),
        Span::styled(state(document), style),
    ];
    if let Some(trouble) = view.trouble() {
        let told = format!("  no answer, trying again: {}", operator::words::shorten(trouble));
        spans = vec![Span::styled(look.title.clone(), bold), Span::styled(told, look.alarming())];
    }
    Line::from(spans)
}

fn loads(frame: &mut Frame<'_>, area: Rect, view: &View, look: &Look, ranks: usize) {
    let Some(load) = view.load() else {
        let block = look.block("load of ranks");
        return frame.render_widget(Paragraph::new("nothing has been computed lately").block(block), area);
    };
    let (width, height) = (area.width.saturating_sub(2), usize::from(area.height.saturating_sub(2)));
    let columns = usize::from((width / BAR_WIDTH).max(1)).min(ranks.div_ceil(height.max(1))).max(1);
    let places = columns * height;
    // Where there are too many, those that hold up the others.
    let mut shown: Vec<usize> = (0..ranks).collect();
    let title = if ranks > places {
        shown.sort_by(|&one, &other| load.ranks[other].total_cmp(&load.ranks[one]));
        shown.truncate(places);
        format!("load of the busiest {} of {}, by the mean", shown.len(), counted(ranks, "rank"))
    } else {
        "load of ranks, by the mean".to_owned()
    };
    let block = look.block(&title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let parts = Layout::horizontal(vec![Constraint::Fill(1); columns]).split(inner);
    for (part, ranks) in parts.iter().zip(shown.chunks(height.max(1))) {
        let lines: Vec<Line<'_>> = ranks.iter().map(|&rank| bar(rank, &load, part.width, look)).collect();
        frame.render_widget(Paragraph::new(lines), *part);
    }
}

fn bar(rank: usize, load: &Load, width: u16, look: &Look) -> Line<'static> {
    let times = load.ranks[rank];
    let room = f64::from(width.saturating_sub(13));
    // The longest bar is the busiest rank's, or half as much again as the mean.
    let most = load.busiest().1.max(1.5);
    let eighths = (times / most * room * 8.0).round() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let drawn = "█".repeat(eighths / 8) + rest;
    Line::from(vec![
        Span::raw(format!("{rank:>4} ")),
        Span::styled(format!("{drawn:<room$}", room = room as usize), look.of_load(times)),
        Span::raw(format!(" {times:>5.2}x")),
    ])
}

fn balance(frame: &mut Frame<'_>, area: Rect, document: &MonitorDocument, view: &View, look: &Look) {
    let block = look.block("balance ratio, 1 is perfect");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let mut lines = Vec::new();
    if let Some(load) = view.load() {
        let (rank, times) = load.busiest();
        lines.push(Line::from(vec![
            Span::raw(format!("now {:.3}, ", load.ratio)),
            Span::styled(format!("rank {rank} has {times:.2} x the mean"), look.of_load(times)),
        ]));
    }
    if let Some(ratio) = document.ratio {
        lines.push(Line::raw(format!("last window {ratio:.3}")));
    }
    let moves = &document.moves;
    let count = |number: u64, what: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), what);
    lines.push(Line::raw(format!(
        "{}, {} moved, {}",
        count(moves.rebalances, "rebalance"),
        count(moves.experts_moved, "expert"),
        bytes(moves.bytes_moved as f64)
    )));
    let [words, line] = Layout::vertical([Constraint::Length(lines.len() as u16), Constraint::Min(0)]).areas(inner);
    frame.render_widget(Paragraph::new(lines), words);
    let skipped = view.ratios().len().saturating_sub(usize::from(line.width));
    let ratios: Vec<u64> = view.ratios().iter().skip(skipped).map(|ratio| (ratio * 1000.0) as u64).collect();
    frame.render_widget(Sparkline::default().data(&ratios).max(1000).style(look.coloured(Color::Cyan)), line);
}

fn latency(frame: &mut Frame<'_>, area: Rect, document: &MonitorDocument, view: &View, look: &Look) {
    let told = &document.latency;
    let row = |name: &str, spread: Option<Quantiles>| {
        let told = |spread: Quantiles| [spread.p50, spread.p90, spread.p99].map(seconds);
        let cells = spread.map_or_else(|| ["-", "-", "-"].map(str::to_owned), told);
        Line::raw(format!("{name:<5}{:>9}{:>9}{:>9}", cells[0], cells[1], cells[2]))
    };
    let head = Line::styled(format!("{:<5}{:>9}{:>9}{:>9}", "", "p50", "p90", "p99"), look.coloured(Color::DarkGray));
    let mut lines = vec![head, row("TTFT", told.first_token), row("ITL", told.inter_token)];
    if look.is_wide {
        lines.push(row("step", told.step));
    }
    let rates = view.rates().unwrap_or_default();
    lines.push(Line::raw(format!(
        "{:.0} tokens/s; {} running, {} waiting",
        rates.completion_tokens, document.running, document.waiting
    )));
    if look.is_wide {
        let stall = seconds(document.stall_seconds);
        lines.push(Line::raw(format!("{:.0} prompt tokens/s", rates.prompt_tokens)));
        lines.push(Line::raw(format!("{:.0} steps/s, {stall} of all in commits", rates.steps)));
    }
    let title = format!("latency over {:.0} s", told.over_seconds);
    frame.render_widget(Paragraph::new(lines).block(look.block(&title)), area);
}

fn reasons(frame: &mut Frame<'_>, area: Rect, document: &MonitorDocument, look: &Look) {
    let told = document.decision.as_ref().map_or_else(|| vec!["nothing has been decided".to_owned()], decision);
    let lines: Vec<Line<'_>> = told.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines).block(look.block("last decision")), area);
}

fn happenings(frame: &mut Frame<'_>, area: Rect, view: &View, look: &Look) {
    let style = |event: &MonitorEvent| match event.what {
        Happening::Lost { .. } | Happening::Aborted { .. } | Happening::Dropped { .. } => look.alarming(),
        Happening::Committed { .. } => look.coloured(Color::Cyan),
        Happening::Completed { .. } | Happening::Formed { .. } => look.coloured(Color::Green),
        _ => Style::new(),
    };
    let newest = view.events().iter().rev().take(area.height.into());
    let lines: Vec<Line<'_>> = newest.map(|event| Line::styled(of_event(event), style(event))).collect();
    frame.render_widget(Paragraph::new(lines).block(look.block("what happened, the newest first")), area);
}
