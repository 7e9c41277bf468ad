use super::*;
use crate::map::MapShape;

fn expected(dense_layers: usize) -> Expected {
    Expected { layers: Some(2), experts: Some(3), ranks: Some(2), dense_layers, repair: false }
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
    assert_eq!(read(FILE.as_bytes(), &expected(3)), Ok(map.clone()));
    let block = "num_slots: 4\ninitial_global_assignments:\n  4:\n  - 0\n  - 1\n  - 2\n  - 0\n  3: [0, 1, 2, 0]\n";
    assert_eq!(read(block.as_bytes(), &expected(3)), Ok(map));
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
    assert_eq!(one, "made for another model, with 1 MoE layers and 3 experts; expected are 2 and 3");
}

#[test]
fn experts_are_checked_with_the_numbers_of_the_file() {
    assert_eq!(
        refused(&FILE.replace("4: [0, 1, 2, 0]", "4: [0, 0, 2, 1]")),
        "layer 4, rank 0: expert 0 is there twice, which wastes a slot"
    );
    assert_eq!(
        refused(&FILE.replace("4: [0, 1, 2, 0]", "4: [0, 1, 1, 0]")),
        "layer 4: expert 2 is on none of the 2 ranks"
    );
    assert_eq!(
        refused(&FILE.replace("4: [0, 1, 2, 0]", "4: [0, 1, 2, -1]")),
        "layer 4, rank 1: expert -1 does not exist, the model has 3"
    );
}

#[test]
fn yaml_of_another_form_is_refused() {
    for (yaml, reason) in [
        ("num_slots: 4\n", "missing field `initial_global_assignments`"),
        ("initial_global_assignments: {}\n", "missing field `num_slots`"),
        ("num_slots: 4\ninitial_global_assignments: {}\nep_size: 2\n", "unknown field `ep_size`"),
        ("num_slots: 4\ninitial_global_assignments: {0: [0], 0: [0]}\n", "duplicate"),
        ("num_slots: [4\n", ""),
    ] {
        let refused = refused(yaml);
        assert!(refused.starts_with("not in its format") && refused.contains(reason), "{yaml}: {refused}");
    }
}
