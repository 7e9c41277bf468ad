//! Plans from nothing, from one window to as many as are kept, beside those of the published algorithm: on the windows that both
//! have seen and on those that neither has.

use anyhow::Result;
use plan::load::WINDOWS_KEPT;

use crate::figures::mean;
use crate::loads::{Window, counted, expert_loads};
use crate::placement::{Placement, Split};
use crate::planners::{Planner, first_layers, initial};
use crate::report::{self, Report};
use crate::shapes::{SHAPES, Shape, named};
use crate::{Options, clock};

/// Layers of each model that are planned for.
const LAYERS: usize = 16;
/// Numbers of windows that plans are made from.
const COUNTS: [usize; 13] = [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, WINDOWS_KEPT];
/// What a mean over windows and layers that were not seen may differ by in either direction without saying anything.
const CHANCE: f64 = 0.006;
/// The most by which one window more may change a plan's next window for the worse.
const CLIFF: f64 = 0.02;
/// Most that a plan from 64 windows may cost, of one from 8.
const GROWTH: f64 = 1.5;

/// Where loads come from, and how much of them a plan is judged by.
struct Law {
    family: &'static str,
    /// Windows before each of these are seen.
    splits: &'static [usize],
    /// So many windows after it are what was not seen.
    unseen: usize,
    /// Whether the windows seen are as good a judge as the next one, as they are where nothing drifts.
    judged_by_seen: bool,
}

const LAWS: [Law; 3] = [
    Law { family: "bursty128", splits: &[64, 80, 96], unseen: 32, judged_by_seen: true },
    // The window of this family again and again, each time counted anew.
    Law { family: "logn10", splits: &[64], unseen: 16, judged_by_seen: true },
    Law { family: "drift50", splits: &[24, 29, 34, 39, 44, 49], unseen: 1, judged_by_seen: false },
];

/// Plans from nothing for several numbers of windows.
pub fn nothing(options: &Options, report: &mut Report) -> Result<()> {
    report::title(&format!("From nothing, from 1 to {WINDOWS_KEPT} windows ({LAYERS} layers)"));
    report::table(&[
        "shape, loads",
        "least seen, over deepseek",
        "least unseen, over deepseek",
        "most lost by more windows",
        "swift unseen, from 1, 8 and most",
        "deepseek",
    ]);
    for law in &LAWS {
        // The stress shape has loads without a sequence alone.
        for shape in SHAPES.iter().filter(|shape| shape.model != "stress" && (!options.quick || shape.ranks == 32)) {
            follow(options, (shape, law), report)?;
        }
    }
    growth(options, report)
}

fn follow(options: &Options, (shape, law): (&Shape, &Law), report: &mut Report) -> Result<()> {
    let mut windows = options.loads.windows(shape.model, law.family)?;
    if windows.len() == 1 {
        windows = (0..(WINDOWS_KEPT + law.unseen) as u64).map(|seed| counted(&windows[0], seed)).collect();
    }
    for window in &mut windows {
        window.truncate(LAYERS);
    }
    let map = first_layers(&initial(shape), LAYERS.min(shape.layers));
    let judged = |planner: Planner, count: usize| -> Result<[f64; 2]> {
        let (mut on_seen, mut on_unseen) = (Vec::new(), Vec::new());
        for &split in law.splits {
            let (seen, unseen) = (&windows[split - count..split], &windows[split..][..law.unseen]);
            let plan = planner.plan(&expert_loads(seen), &shape.topology(), &map)?;
            let placement = Placement::of(&plan, shape.topology().slots())?;
            let ratios = |windows: &[Window]| {
                windows.iter().map(|window| mean(&placement.balancedness(window, Split::Planned))).collect::<Vec<f64>>()
            };
            on_seen.extend(ratios(seen));
            on_unseen.extend(ratios(unseen));
        }
        Ok([mean(&on_seen), mean(&on_unseen)])
    };
    let (mut seen_margin, mut unseen_margin, mut lost) = (f64::INFINITY, f64::INFINITY, 0.0_f64);
    let mut shown: [Vec<String>; 2] = Default::default();
    let mut before: Option<f64> = None;
    let counts = COUNTS.into_iter().filter(|&count| law.splits.iter().all(|&split| count <= split));
    let most = counts.clone().max();
    for count in counts {
        let [ours, theirs] = [judged(Planner::Scratch, count)?, judged(Planner::DeepSeek, count)?];
        seen_margin = seen_margin.min(ours[0] - theirs[0]);
        unseen_margin = unseen_margin.min(ours[1] - theirs[1]);
        lost = before.map_or(0.0, |before| lost.max(before - ours[1]));
        before = Some(ours[1]);
        if [1, 8].contains(&count) || Some(count) == most {
            shown.iter_mut().zip([ours, theirs]).for_each(|(shown, figures)| shown.push(format!("{:.4}", figures[1])));
        }
    }
    let what = format!("{} {}", shape.name, law.family);
    let [ours, theirs] = shown.map(|shown| shown.join(" "));
    let figures = [seen_margin, unseen_margin, lost].map(|figure| format!("{figure:.4}"));
    report::row(&[std::slice::from_ref(&what), &figures[..], &[ours, theirs]].concat());
    if law.judged_by_seen {
        report.at_least(format!("{what}, from nothing, seen, over deepseek"), seen_margin, 0.0);
    }
    report.at_least(format!("{what}, from nothing, unseen, over deepseek"), unseen_margin, -CHANCE);
    report.at_most(format!("{what}, from nothing, lost by more windows"), lost, CLIFF, "");
    Ok(())
}

/// Time of plans from many windows, against few, where nothing comes in bursts.
fn growth(options: &Options, report: &mut Report) -> Result<()> {
    let shape = named("dsv3-32");
    let window = options.loads.window(shape.model, "logn10")?;
    let of = |count: usize| -> f64 {
        let history = expert_loads(&vec![window.clone(); count]);
        let (_, least) = clock::repeated(5, || {
            let plan = Planner::InForce.plan(&history, &shape.topology(), &initial(shape));
            assert!(plan.is_ok(), "a plan is made");
        });
        least
    };
    let (few, many) = (of(8), of(WINDOWS_KEPT));
    report.at_most("dsv3-32, time of a plan from 64 windows against one from 8", many / few, GROWTH, "x");
    Ok(())
}
