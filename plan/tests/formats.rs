//! Maps and arrays survive being written and read, whatever they hold. A failing case prints its seed and its shrunken
//! input.
#![allow(clippy::unwrap_used, reason = "the rule about tests does not reach functions that tests share")]

use plan::formats::{Expected, Format, loads, npy, read_any};
use plan::ids::ExpertId;
use plan::map::{ExpertMap, MapShape};
use plan::wire::ModelIdentity;
use proptest::prelude::*;

/// A map whose experts have another order in each layer.
fn maps() -> impl Strategy<Value = ExpertMap> {
    (1..4_usize, 1..24_usize, 1..9_usize).prop_flat_map(|(layers, experts, ranks)| {
        let experts_in_order: Vec<ExpertId> = (0..experts).map(ExpertId::from).collect();
        let orders = prop::collection::vec(Just(experts_in_order).prop_shuffle(), layers);
        (orders, experts.div_ceil(ranks)..=experts).prop_map(move |(orders, slots_per_rank)| {
            let shape = MapShape { layers, experts, ranks, slots_per_rank };
            let contiguous = ExpertMap::contiguous(shape).unwrap();
            let slots = contiguous.layers().flat_map(|layer| {
                let order = &orders[layer.index()];
                contiguous.layer(layer).iter().map(|expert| order[expert.index()])
            });
            ExpertMap::new(shape, slots.collect()).unwrap()
        })
    })
}

/// Rows of physical experts of which some rank may hold an expert twice, and the number of ranks.
fn rows_with_second_copies() -> impl Strategy<Value = (Vec<Vec<u32>>, usize)> {
    maps().prop_flat_map(|map| {
        let ranks = map.shape().ranks;
        let rows: Vec<Vec<u32>> =
            map.layers().map(|layer| map.layer(layer).iter().map(|expert| expert.0).collect()).collect();
        let shuffled: Vec<_> = rows.into_iter().map(|row| Just(row).prop_shuffle()).collect();
        (shuffled, Just(ranks))
    })
}

proptest! {
    #[test]
    fn maps_survive_every_format(map in maps(), dense_layers in 0..4_usize) {
        let MapShape { layers, experts, ranks, .. } = map.shape();
        let model = ModelIdentity { name: "m".to_owned(), digest: "d".to_owned(), layers, experts };
        let expected =
            Expected { layers: Some(layers), experts: Some(experts), ranks: Some(ranks), dense_layers, ..Expected::default() };
        for format in Format::ALL {
            let text = format.write(&map, &model, dense_layers).unwrap();
            let found = read_any(text.as_bytes(), &expected).unwrap();
            prop_assert_eq!((found.format, &found.map), (format, &map));
            let repaired = read_any(text.as_bytes(), &Expected { repair: true, ..expected }).unwrap();
            prop_assert_eq!(&repaired.map, &map, "a valid map needs no repair");
        }
    }

    #[test]
    fn whatever_has_every_expert_is_repaired_to_a_map((rows, ranks) in rows_with_second_copies()) {
        let expected = Expected { ranks: Some(ranks), repair: true, ..Expected::default() };
        let text = serde_json::to_string(&rows).unwrap();
        let found = read_any(text.as_bytes(), &expected);
        prop_assert!(found.is_ok(), "{:?}", found);
        // As it is, each rank computes as many tokens as its slots of each expert would.
        let found = read_any(text.as_bytes(), &Expected { repair: false, ..expected }).unwrap();
        let experts = found.map.shape().experts;
        for (layer, row) in found.map.layers().zip(&rows) {
            let slots: Vec<ExpertId> = row.iter().map(|&expert| ExpertId(expert)).collect();
            let parts = plan::map::even_shares(&slots, experts);
            for expert in (0..experts).map(ExpertId::from) {
                let of_ranks = |slots: &[ExpertId], parts: &[u32]| -> Vec<u32> {
                    let per_rank = row.len() / ranks;
                    let of = |(slots, parts): (&[ExpertId], &[u32])| {
                        slots.iter().zip(parts).filter(|&(&held, _)| held == expert).map(|(_, part)| part).sum()
                    };
                    slots.chunks(per_rank).zip(parts.chunks(per_rank)).map(of).collect()
                };
                prop_assert_eq!(of_ranks(&slots, &parts), of_ranks(found.map.layer(layer), &found.map.parts(layer)));
            }
        }
        let doubled = |chunk: &[u32]| chunk.len() - chunk.iter().collect::<std::collections::BTreeSet<_>>().len();
        let second: usize = rows.iter().flat_map(|row| row.chunks(row.len() / ranks)).map(doubled).sum();
        prop_assert_eq!(found.second_copies.len(), second);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize) {
        let start: &[u8] = [&b"\x93NUMPY\x01\x00"[..], b"[[", b"initial_global_assignments: ", b"{\"logical_count\": "][kind];
        let bytes = [start, &bytes].concat();
        let _ = npy::read(&bytes);
        let _ = loads::read(&bytes);
        let _ = read_any(&bytes, &Expected { ranks: Some(2), ..Expected::default() });
    }
}
