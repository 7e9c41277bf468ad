//! How well plans from scratch balance the load they were made for.

use anyhow::Result;

use crate::figures::{largest, mean};
use crate::loads::{Window, expert_loads};
use crate::peers::{BY_FAMILY, FAMILIES, Quality};
use crate::placement::{Placement, Split};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::{FIVE, Shape, TWO_RECORDED};
use crate::{Options, bound};

/// Largest mean excess on recorded loads, by shape.
const RECORDED_TARGETS: [(&str, f64); 3] = [("dsv3-32", 0.05), ("dsv3-64", 0.1), ("dsv3-72", 0.1)];
/// Largest mean excess on the largest shape.
const STRESS_TARGET: f64 = 0.5;
/// From so many slots per rank on, the excess must be this share of the best peer's.
const SLOTS_OF_QUARTER: usize = 4;
const QUARTER: f64 = 0.25;
/// Peers' figures are rounded to two decimals: a figure that would be shown as theirs is theirs.
const ROUNDING: f64 = 0.005;

/// Excess of plans over the bound in per cent, by layer: when copies share evenly, the same over the tighter bound, when
/// copies take the plan's shares, and that of the published algorithm.
#[derive(Default)]
struct Excess {
    even: Vec<f64>,
    tight: Vec<f64>,
    /// How far the tighter bound is above the other: no placement is below that.
    floor: Vec<f64>,
    planned: Vec<f64>,
    deepseek: Vec<f64>,
}

impl Excess {
    fn on(shape: &Shape, window: &Window) -> Result<Self> {
        let bounds: Vec<f64> = window.iter().map(|load| bound::of_counts(load, shape.ranks, shape.physical)).collect();
        let tight: Vec<f64> =
            window.iter().map(|load| bound::with_companions(load, shape.ranks, shape.physical)).collect();
        let over = |bounds: &Vec<f64>, placement: &Placement, split| {
            let busiest = placement.busiest(window, split);
            busiest.iter().zip(bounds).map(|(max, bound)| (max / bound - 1.0) * 100.0).collect()
        };
        let loads = expert_loads(std::slice::from_ref(window));
        let place = |planner: Planner| -> Result<Placement> {
            let map = planner.plan(&loads, &shape.topology(), &initial(shape))?;
            Placement::of(&map, shape.topology().slots())
        };
        let ours = place(Planner::Scratch)?;
        Ok(Self {
            even: over(&bounds, &ours, Split::Even),
            floor: tight.iter().zip(&bounds).map(|(tight, bound)| (tight / bound - 1.0) * 100.0).collect(),
            tight: over(&tight, &ours, Split::Even),
            planned: over(&bounds, &ours, Split::Planned),
            deepseek: over(&bounds, &place(Planner::DeepSeek)?, Split::Even),
        })
    }

    fn extend(&mut self, other: &Self) {
        self.even.extend(&other.even);
        self.tight.extend(&other.tight);
        self.floor.extend(&other.floor);
        self.planned.extend(&other.planned);
        self.deepseek.extend(&other.deepseek);
    }

    fn show(&self, shape: &Shape, loads: &str, peers: &Quality) {
        report::row(&[
            shape.name.to_owned(),
            loads.to_owned(),
            figure(&self.even),
            figure(&self.tight),
            figure(&self.planned),
            figure(&self.deepseek),
            format!("{:.2} {}", peers.best.1, peers.best.0),
            format!("{:.2}", peers.vllm),
            peers.reference.map_or(String::new(), |reference| format!("{reference:.2}")),
        ]);
    }
}

/// Excess over the bound, by shape and by family.
pub fn quality(options: &Options, report: &mut Report) -> Result<()> {
    report::title("Quality from scratch: excess of the busiest rank over the bound, %, mean over layers (worst layer)");
    let split = ["even split", "over the tighter bound", "plan's shares", "deepseek, here"];
    report::table(&[&["shape", "loads"], &split[..], &["best peer", "vllm", "ref-ls"]].concat());
    let mut by_family = Vec::new();
    for shape in options.shapes() {
        let families = FAMILIES.iter().filter(|family| !options.quick || FIVE.contains(family));
        let excess = families.map(|&family| {
            let window = options.loads.window(shape.model, family)?;
            Ok((family, Excess::on(shape, &window)?))
        });
        let excess: Vec<(&str, Excess)> = excess.collect::<Result<_>>()?;
        synthetic(shape, &excess, report);
        by_family.push((shape.name, excess));
        if let Some(peers) = &shape.recorded
            && options.loads.has_recorded()
        {
            recorded(options, shape, peers, report)?;
        }
    }
    report::title("The same by family");
    report::table(&[&["shape, family"], &split[..], &["best peer", "ref-ls"]].concat());
    for (shape, excess) in &by_family {
        for (family, excess) in excess {
            show_family(shape, family, excess);
        }
    }
    Ok(())
}

fn synthetic(shape: &'static Shape, excess: &[(&str, Excess)], report: &mut Report) {
    let over = |families: &[&str]| {
        let mut total = Excess::default();
        for (_, excess) in excess.iter().filter(|(family, _)| families.contains(family)) {
            total.extend(excess);
        }
        total
    };
    let compared = over(shape.compared);
    compared.show(shape, &format!("{} families", shape.compared.len()), &shape.synthetic);
    let (name, found) = (shape.name, mean(&compared.even));
    if let Some(reference) = shape.synthetic.reference {
        report.at_most(format!("{name}, five families, against ref-ls"), found, reference + ROUNDING, " %");
    }
    if shape.slots() >= SLOTS_OF_QUARTER {
        let limit = shape.synthetic.best.1 * QUARTER;
        let what = format!("{name}, five families, a quarter of the best peer");
        report.at_most_if_possible(what, (found, mean(&compared.floor)), limit, " %");
    }
    if name == "stress-512" {
        for families in [&FIVE[..], &["logn10"]] {
            let what = format!("{name}, {}", families.join(" "));
            report.at_most(what, mean(&over(families).even), STRESS_TARGET, " %");
        }
    }
}

fn recorded(options: &Options, shape: &Shape, peers: &Quality, report: &mut Report) -> Result<()> {
    let mut total = Excess::default();
    for family in TWO_RECORDED {
        total.extend(&Excess::on(shape, &options.loads.window(shape.model, family)?)?);
    }
    total.show(shape, "2 recorded", peers);
    if let Some((_, limit)) = RECORDED_TARGETS.iter().find(|(name, _)| *name == shape.name) {
        report.at_most(format!("{}, recorded", shape.name), mean(&total.even), *limit, " %");
    }
    Ok(())
}

fn show_family(shape: &str, family: &str, excess: &Excess) {
    let place = FAMILIES.iter().position(|known| *known == family);
    let peers = BY_FAMILY.iter().find(|(name, _)| *name == shape).zip(place).map(|((_, row), at)| row[at]);
    let (best, reference) = match peers {
        Some((peer, excess, reference)) if !excess.is_nan() => {
            (format!("{excess:.2} {peer}"), reference.map_or(String::new(), |reference| format!("{reference:.2}")))
        }
        _ => Default::default(),
    };
    let found = [&excess.even, &excess.tight, &excess.planned, &excess.deepseek].map(|excess| figure(excess));
    report::row(&[&[format!("{shape} {family}")], &found[..], &[best, reference]].concat());
}

fn figure(excess: &[f64]) -> String {
    format!("{:.3} ({:.2})", mean(excess), largest(excess))
}
