use proptest::prelude::*;

use super::super::tests::{copies, layers, levels};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_never_raises_the_busiest_rank_and_leaves_what_is_good_enough(layer in layers()) {
        let mut packing = layer.packing();
        lowest::improve(&mut packing, 0.0, 0.0);
        let before = packing.top();
        let mut left = packing.clone();
        deepen(&mut left, before);
        prop_assert_eq!(left.slots(), packing.slots());
        deepen(&mut packing, 0.0);
        let copies = copies(&layer.ranks, layer.weights.len(), packing.slots());
        prop_assert!(copies.is_some_and(|copies| copies.iter().all(|&count| count >= layer.least)));
        let after = levels(&layer.ranks, &layer.weights, packing.slots()).into_iter().fold(0.0, f64::max);
        prop_assert!(after <= before * (1.0 + 1e-9), "{after} from {before}");
    }
}
