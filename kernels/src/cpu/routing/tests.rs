use super::*;

/// Bytes that a list has room for.
fn room<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

#[test]
fn what_a_group_takes_is_what_its_lists_have_room_for() {
    for (ranks, slots, top_k, tokens, experts) in [(1, 8, 2, 512, 8), (4, 3, 4, 17, 9), (16, 1, 8, 300, 16)] {
        let group = GroupShape { ranks, rank: 0, layers: 3, slots, top_k, tokens };
        let physical = ranks * slots;
        let layer = |layer| LayerRouting {
            layer,
            copies: Copies {
                starts: vec![0; experts + 1],
                slots: vec![Slot::default(); physical],
                bounds: vec![0; physical],
            },
            pages: vec![PageId(0); slots],
        };
        let Slots { layers, pairs } = &Slots::new(group, (0..3).map(layer).collect()).unwrap();
        let mut held = room(layers) + room(pairs);
        for LayerRouting { layer: _, copies: Copies { starts, slots, bounds }, pages } in layers {
            held += room(starts) + room(slots) + room(bounds) + room(pages);
        }
        assert_eq!(Slots::bytes(group, experts), held as u64, "{group:?}");

        let routing = Routing::new(group).unwrap();
        let Routing { group: _, chosen, here: Here { pairs, own: _ }, grouped } = &routing;
        let Chosen { experts: chosen, weights, destinations, given } = chosen;
        let Grouped { pages, counts, starts, next, rows, places, bases, results } = grouped;
        let mut held = size_of_val(chosen.whole()) + size_of_val(weights.whole()) + room(destinations);
        held += [given, counts, starts, next, rows, places, bases, results].map(room).iter().sum::<usize>();
        held += room(pairs) + room(pages);
        assert_eq!(Routing::bytes(group), held as u64, "{group:?}");
    }
}
