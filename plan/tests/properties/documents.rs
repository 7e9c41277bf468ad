//! What must hold for maps that are written and read.

use plan::formats::{self, vllm_ascend};
use plan::map::{ExpertMap, MapShape};
use plan::wire::{MapDocument, ModelIdentity};
use proptest::prelude::*;

use super::cases::{groups, maps, shapes, shared_maps};

fn model(map: &ExpertMap) -> ModelIdentity {
    let MapShape { layers, experts, .. } = map.shape();
    ModelIdentity { name: "any".to_owned(), digest: "any".to_owned(), layers, experts }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn maps_come_back_from_every_format_as_they_were(map in shapes().prop_flat_map(maps)) {
        let model = model(&map);
        let document = MapDocument::new(model.clone(), &map);
        let json = serde_json::to_vec(&document).unwrap();
        let read = |text: &[u8]| formats::read(text, &model, map.shape().ranks).map(|found| found.map);
        prop_assert_eq!(read(&json), Ok(map.clone()));
        prop_assert_eq!(MapDocument::from_json(&json).unwrap().content_hash(), document.content_hash());
        prop_assert_eq!(read(vllm_ascend::write(&map).as_bytes()), Ok(map.clone()));
    }

    #[test]
    fn maps_of_unlike_ranks_come_back_with_their_shares(map in groups().prop_flat_map(|group| group.maps())) {
        let json = serde_json::to_vec(&MapDocument::new(model(&map), &map)).unwrap();
        prop_assert_eq!(MapDocument::from_json(&json).unwrap().to_map(&model(&map)), Ok(map));
    }

    #[test]
    fn only_equal_placements_have_equal_hashes(
        (old, new) in shapes().prop_flat_map(|shape| (shared_maps(shape), shared_maps(shape))),
    ) {
        let hash = |map: &ExpertMap| MapDocument::new(model(map), map).content_hash();
        prop_assert_eq!(hash(&old) == hash(&new), old == new);
    }
}
