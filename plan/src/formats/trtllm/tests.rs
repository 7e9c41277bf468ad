use super::*;
use crate::map::MapShape;

fn expected(dense_layers: usize) -> Expected {
    Expected { layers: Some(2), experts: Some(3), ranks: Some(2), dense_layers, mtp_layers: 0, repair: false }
}

fn refused(yaml: &str) -> String {
    read(yaml.as_bytes(), &expected(3)).unwrap_err().to_string()
}

const FILE: &str = "\
initial_global_assignments:
  3: [0, 1, 2, 0]
  4: [0, 1, 2, 0]
layer_updates_per_iter: 0
num_slots: 4
";

#[test]
fn a_map_is_read_as_it_was_written() {
    let map = ExpertMap::contiguous(MapShape { layers: 2, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap();
    assert_eq!(write(&map, 3), FILE);
    assert_eq!(read(FILE.as_bytes(), &expected(3)).map(|placed| placed.map), Ok(map.clone()));
    let block = "num_slots: 4\ninitial_global_assignments:\n  4:\n  - 0\n  - 1\n  - 2\n  - 0\n  3: [0, 1, 2, 0]\n";
    assert_eq!(read(block.as_bytes(), &expected(3)).map(|placed| placed.map), Ok(map));
}

#[test]
fn layers_must_follow_the_dense_ones() {
    let first = read(FILE.as_bytes(), &expected(0)).unwrap_err().to_string();
    assert_eq!(
        first,
        "layer 3 is there where layer 0 should be; layers count from 0, dense ones included, and the model is said to \
         start with 0 dense layers"
    );
    assert!(refused(&FILE.replace("  4:", "  5:")).starts_with("layer 5 is there where layer 4 should be"));
}

#[test]
fn wrong_numbers_of_slots_and_layers_are_refused() {
    assert_eq!(refused(&FILE.replace("num_slots: 4", "num_slots: 5")), "layer 3: 4 slots, num_slots is 5");
    assert_eq!(refused(&FILE.replace("4: [0, 1, 2, 0]", "4: [0, 1, 2]")), "layer 4: 3 slots, num_slots is 4");
    assert_eq!(refused("num_slots: 4\ninitial_global_assignments: {}\n"), "it has no layers");
    let one = refused(&FILE.replace("  4: [0, 1, 2, 0]\n", ""));
    assert_eq!(one, "made for another model, with 1 MoE layer and 3 experts; expected are 2 and 3");
}

#[test]
fn experts_are_checked_with_the_numbers_of_the_file() {
    assert_eq!(refused(&FILE.replace("4: [0, 1, 2, 0]", "4: [0, 1, 1, 0]")), "layer 4: expert 2 is on no rank of 2");
    assert_eq!(
        refused(&FILE.replace("4: [0, 1, 2, 0]", "4: [0, 1, 2, -1]")),
        "layer 4, rank 1: expert -1 does not exist, the model has 3"
    );
}

#[test]
fn yaml_of_another_form_is_refused() {
    for (yaml, reason) in [
        ("initial_global_assignments: {}\n", "missing field `num_slots`"),
        ("num_slots: 4\ninitial_global_assignments: {}\nep_size: 2\n", "unknown field `ep_size`"),
        ("num_slots: 4\ninitial_global_assignments: {0: [0], 0: [0]}\n", "duplicate"),
        ("num_slots: [4\n", ""),
    ] {
        let refused = refused(yaml);
        assert!(refused.starts_with("not in its format") && refused.contains(reason), "{yaml}: {refused}");
    }
}

#[test]
fn the_options_of_a_server_hold_it_or_name_its_file() {
    let indented = |depth: usize| {
        format!("{}{}", " ".repeat(depth), FILE.trim_end().replace('\n', &format!("\n{}", " ".repeat(depth)))) + "\n"
    };
    let expected_map = read(FILE.as_bytes(), &expected(3)).unwrap();
    for options in [
        format!("tensor_parallel_size: 2\nmoe_config:\n  backend: WIDEEP\n  load_balancer:\n{}", indented(4)),
        format!("moe_load_balancer:\n{}", indented(2)),
    ] {
        assert_eq!(read(options.as_bytes(), &expected(3)).as_ref(), Ok(&expected_map), "{options}");
    }
    let elsewhere = refused("moe_config: {load_balancer: ./moe_load_balancer.yaml}\n");
    assert_eq!(
        elsewhere,
        "the options of a server, which have their load balancer in another file, \"./moe_load_balancer.yaml\": read that one"
    );
    assert!(refused("moe_config: {backend: WIDEEP}\n").starts_with("the options of a server without a load_balancer"));
}

#[test]
fn what_is_balanced_online_starts_where_the_engine_starts_it() {
    let online = "num_slots: 6\nlayer_updates_per_iter: 2\n";
    let known = Expected { experts: Some(4), ..expected(0) };
    let placed = read(online.as_bytes(), &known).unwrap();
    assert_eq!(placed.map.shape(), MapShape { layers: 2, experts: 4, ranks: 2, slots_per_rank: 3 });
    assert_eq!(placed.map.layer(LayerId(1)), [0, 1, 2, 2, 3, 0].map(crate::ids::ExpertId));
    let unknown = read(online.as_bytes(), &Expected { experts: None, ..known }).unwrap_err().to_string();
    assert!(unknown.contains("assigns no expert to its 6 slots") && unknown.contains("--ranks"), "{unknown}");
    let few = read(b"num_slots: 2\nlayer_updates_per_iter: 1\n", &known).unwrap_err().to_string();
    assert!(few.contains("expert") && few.contains("on no rank of 2"), "{few}");
    for number in [0, -1] {
        let wrong = read(format!("num_slots: {number}\n").as_bytes(), &known).unwrap_err().to_string();
        assert_eq!(wrong, format!("num_slots is {number}; it must be at least the number of experts"));
    }
}
