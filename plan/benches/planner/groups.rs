//! What the published algorithm pays when it keeps the experts of a router group on one node.

use anyhow::Result;

use crate::figures::{least, mean};
use crate::loads::expert_loads;
use crate::placement::{Placement, Split};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::{FIVE, TWO_RECORDED, named};
use crate::{Options, bound};

/// Balancedness of vLLM in this mode, and its excess over the best possible in it: synthetic and recorded.
const PEERS: [(&str, [(f64, f64); 2]); 2] =
    [("dsv3-32", [(0.726, 11.5), (0.836, 0.56)]), ("dsv3-64", [(0.516, 18.2), (0.560, 1.92)])];

/// Hierarchical plans against plans without the constraint.
pub fn groups(options: &Options, _: &mut Report) -> Result<()> {
    report::title("Groups kept on nodes (deepseek, hierarchical), balancedness, mean over layers");
    report::table(&[
        "shape, loads",
        "hierarchical",
        "worst layer",
        "best possible so",
        "excess over that %",
        "vllm, excess %",
        "deepseek, global",
        "swift, priced not forbidden",
    ]);
    for (name, [synthetic, recorded]) in PEERS {
        for (loads, families, (ratio, excess)) in
            [("5 families", &FIVE[..], synthetic), ("2 recorded", &TWO_RECORDED[..], recorded)]
        {
            if families[0].starts_with("real") && !options.loads.has_recorded() {
                continue;
            }
            compare(options, name, (loads, families), &format!("{ratio:.3}, {excess}"))?;
        }
    }
    Ok(())
}

fn compare(options: &Options, name: &str, (loads, families): (&str, &[&str]), peer: &str) -> Result<()> {
    let shape = named(name);
    let free = shape.topology();
    let grouped = free.clone().with_router_groups(shape.router_groups);
    let (mut hierarchical, mut best, mut global, mut ours) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for family in families {
        let window = options.loads.window(shape.model, family)?;
        let load = expert_loads(std::slice::from_ref(&window));
        let balancedness = |planner: Planner, topology| -> Result<Vec<f64>> {
            let map = planner.plan(&load, topology, &initial(shape))?;
            Ok(Placement::of(&map, free.slots())?.balancedness(&window, Split::Even))
        };
        hierarchical.extend(balancedness(Planner::DeepSeek, &grouped)?);
        global.extend(balancedness(Planner::DeepSeek, &free)?);
        ours.extend(balancedness(Planner::Scratch, &grouped)?);
        best.extend(window.iter().map(|load| {
            let mean = load.iter().sum::<u64>() as f64 / shape.ranks as f64;
            mean / bound::of_groups(load, shape)
        }));
    }
    let excess: Vec<f64> = hierarchical.iter().zip(&best).map(|(ratio, best)| (best / ratio - 1.0) * 100.0).collect();
    report::row(&[
        format!("{name}, {loads}"),
        format!("{:.3}", mean(&hierarchical)),
        format!("{:.3}", least(&hierarchical)),
        format!("{:.3}", mean(&best)),
        format!("{:.2}", mean(&excess)),
        peer.to_owned(),
        format!("{:.3}", mean(&global)),
        format!("{:.3}", mean(&ours)),
    ]);
    Ok(())
}
