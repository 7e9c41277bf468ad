use serde_json::{Value, json};

use super::*;
use crate::ids::ExpertId;
use crate::load::ExpertLoad;
use crate::map::{ExpertMap, MapError, MapShape, WHOLE};
use crate::slots::RankSlots;

fn model() -> ModelIdentity {
    ModelIdentity { name: "small".to_owned(), digest: "d1".to_owned(), layers: 1, experts: 3 }
}

fn map() -> ExpertMap {
    ExpertMap::contiguous(MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap()
}

fn document() -> Value {
    serde_json::to_value(MapDocument::new(model(), &map())).unwrap()
}

fn refused(path: &str, value: Value) -> WireError {
    let mut document = document();
    *document.pointer_mut(path).unwrap() = value;
    let read = MapDocument::from_json(document.to_string().as_bytes());
    read.and_then(|document| document.to_map(&model())).unwrap_err()
}

#[test]
fn a_map_document_has_this_form_and_this_hash() {
    let document = MapDocument::new(model(), &map());
    let json = r#"{"version":"swiftbalancer.io/v1","model":{"name":"small","digest":"d1","layers":1,"experts":3},"ranks":2,"slotsPerRank":2,"placement":[[[0,1],[2,0]]]}"#;
    assert_eq!(serde_json::to_string(&document).unwrap(), json);
    // sha256sum of the line above: maps that are stored by name must be found under it by later versions.
    assert_eq!(document.content_hash(), "884aae5d5917d4d0f5077a05eb1ce4128900d92cf81bbb046b85eda89a8330b3");
    assert_eq!(MapDocument::from_json(json.as_bytes()).unwrap().to_map(&model()), Ok(map()));
}

#[test]
fn another_version_is_named_before_anything_else_is_read() {
    let newer = WireError::Version { found: "swiftbalancer.io/v2".to_owned() };
    assert_eq!(MapDocument::from_json(br#"{"version": "swiftbalancer.io/v2", "weights": []}"#), Err(newer.clone()));
    assert_eq!(State::from_json(br#"{"version": "swiftbalancer.io/v2"}"#), Err(newer.clone()));
    assert_eq!(LoadDocument::from_json(br#"{"version": "swiftbalancer.io/v2"}"#), Err(newer.clone()));
    assert_eq!(RecordedMap::from_json(br#"{"map": {"version": "swiftbalancer.io/v2"}}"#), Err(newer));
    assert_eq!(MapDocument::from_json(b"{}"), Err(WireError::Version { found: "none".to_owned() }));
}

#[test]
fn a_document_that_was_not_read_here_is_checked_for_its_version_too() {
    let document = MapDocument { version: "v9".to_owned(), ..MapDocument::new(model(), &map()) };
    assert_eq!(document.to_map(&model()), Err(WireError::Version { found: "v9".to_owned() }));
}

#[test]
fn text_that_is_no_document_and_unknown_fields_are_refused() {
    assert!(matches!(MapDocument::from_json(b"version: 1"), Err(WireError::Json { .. })));
    let mut extra = document();
    extra["weights"] = json!([]);
    let WireError::Json { reason } = MapDocument::from_json(extra.to_string().as_bytes()).unwrap_err() else {
        panic!("an unknown field is an error of form");
    };
    assert!(reason.contains("unknown field `weights`"), "{reason}");
}

#[test]
fn a_map_of_another_model_is_refused_and_one_under_another_name_is_not() {
    let document = MapDocument::new(model(), &map());
    for other in [
        ModelIdentity { digest: "d2".to_owned(), ..model() },
        ModelIdentity { layers: 2, ..model() },
        ModelIdentity { experts: 4, ..model() },
    ] {
        let refused = document.to_map(&other).unwrap_err();
        assert_eq!(refused, WireError::OtherModel { found: model().into(), expected: other.into() });
    }
    assert_eq!(document.to_map(&ModelIdentity { name: "other".to_owned(), ..model() }), Ok(map()));
}

#[test]
fn a_placement_of_other_dimensions_than_it_says_is_refused_with_the_place() {
    assert_eq!(refused("/placement", json!([])), WireError::Layers { found: 0, expected: 1 });
    assert_eq!(refused("/placement/0", json!([[0, 1]])), WireError::Ranks { layer: 0, found: 1, expected: 2 });
    let slots = WireError::Slots { layer: 0, rank: 1, found: 1, expected: 2 };
    assert_eq!(refused("/placement/0/1", json!([2])), slots);
    let twice = MapError::Twice { layer: 0.into(), rank: 1.into(), expert: ExpertId(2) };
    assert_eq!(refused("/placement/0/1", json!([2, 2])), WireError::Map(twice));
    let ranks = MapError::Dimension { what: "ranks", value: 1 << 40 };
    assert_eq!(refused("/ranks", json!(1_u64 << 40)), WireError::Map(ranks));
}

#[test]
fn shares_are_part_of_a_document_and_of_its_hash_where_they_are_not_even() {
    let shared = map().with_shares(&[WHOLE / 4, WHOLE, WHOLE, WHOLE / 4 * 3]).unwrap();
    let document = MapDocument::new(model(), &shared);
    let json = serde_json::to_string(&document).unwrap();
    assert!(json.ends_with(r#""placement":[[[0,1],[2,0]]],"shares":[[[16384,65536],[65536,49152]]]}"#), "{json}");
    assert_eq!(MapDocument::from_json(json.as_bytes()).unwrap().to_map(&model()), Ok(shared));
    assert_ne!(document.content_hash(), MapDocument::new(model(), &map()).content_hash());
    let with = |shares: Value| {
        let mut document = serde_json::to_value(&document).unwrap();
        document["shares"] = shares;
        MapDocument::from_json(document.to_string().as_bytes()).unwrap().to_map(&model()).unwrap_err()
    };
    let missing = MapError::Shares { layer: 0.into(), expert: ExpertId(0), found: u64::from(WHOLE) / 2 };
    assert_eq!(with(json!([[[32768, 65536], [65536, 0]]])), WireError::Map(missing));
    assert_eq!(with(json!([[[65536], [65536, 0]]])), WireError::Slots { layer: 0, rank: 0, found: 1, expected: 2 });
}

#[test]
fn ranks_with_unequal_numbers_of_slots_are_named_as_such() {
    let slots = [0, 1, 2, 0].map(ExpertId).to_vec();
    let unequal = ExpertMap::with_slots_of_ranks(1, 3, RankSlots::new([3, 1]), slots).unwrap();
    let document = MapDocument::new(model(), &unequal);
    assert_eq!((document.slots_per_rank, &document.slots_of_ranks), (3, &Some(vec![3, 1])));
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(MapDocument::from_json(json.as_bytes()).unwrap().to_map(&model()), Ok(unequal));
    let with = |counts| MapDocument { slots_of_ranks: Some(counts), ..document.clone() }.to_map(&model()).unwrap_err();
    assert_eq!(with(vec![3]), WireError::SlotsOfRanks { found: 1, expected: 2 });
    assert_eq!(with(vec![3, 4]), WireError::MoreSlots { rank: 1, found: 4, most: 3 });
    assert_eq!(with(vec![2, 1]), WireError::Slots { layer: 0, rank: 0, found: 3, expected: 2 });
}

#[test]
fn a_load_is_read_as_it_was_written_and_checked_against_the_model() {
    let load = ExpertLoad::from_rows(&[vec![5, 0, 7]]).unwrap();
    let document = LoadDocument::new(model(), 3, 400, &load);
    let json = serde_json::to_vec(&document).unwrap();
    let read = LoadDocument::from_json(&json).unwrap();
    assert_eq!(read, document);
    assert_eq!(read.to_load(&model()), Ok(load));
    let counts = |counts: Vec<Vec<u64>>| LoadDocument { counts, ..document.clone() }.to_load(&model());
    assert_eq!(counts(Vec::new()), Err(WireError::Layers { found: 0, expected: 1 }));
    assert_eq!(counts(vec![vec![1, 2]]), Err(WireError::Experts { layer: 0, found: 2, expected: 3 }));
    let other = ModelIdentity { digest: "d2".to_owned(), ..model() };
    assert!(matches!(document.to_load(&other), Err(WireError::OtherModel { .. })));
    let old = LoadDocument { version: "v0".to_owned(), ..document.clone() };
    assert_eq!(old.to_load(&model()), Err(WireError::Version { found: "v0".to_owned() }));
}

#[test]
fn a_map_of_no_named_model_fits_every_model_of_its_size() {
    let unnamed = ModelIdentity { name: String::new(), digest: String::new(), ..model() };
    let map = ExpertMap::contiguous(MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap();
    let json = serde_json::to_string(&MapDocument::new(unnamed, &map)).unwrap();
    assert!(json.contains(r#""model":{"layers":1,"experts":3}"#), "{json}");
    let read = MapDocument::from_json(json.as_bytes()).unwrap();
    assert_eq!(read.to_map(&model()), Ok(map.clone()));
    let larger = ModelIdentity { experts: 4, ..model() };
    assert!(matches!(read.to_map(&larger), Err(WireError::OtherModel { .. })));
    let named = MapDocument::new(model(), &map);
    let nameless = ModelIdentity { digest: String::new(), ..model() };
    assert!(matches!(named.to_map(&nameless), Err(WireError::OtherModel { .. })), "only the document may leave it out");
}

#[test]
fn what_a_document_says_of_itself_is_repeated_in_few_words_and_moves_no_cursor() {
    let long = format!("\u{1b}[2J{}\u{202e}end", "x".repeat(1 << 16));
    let version = json!({"version": long}).to_string();
    let phase = json!({"version": VERSION, "model": {"layers": long}}).to_string();
    let other = ModelIdentity { name: long.clone(), digest: long.clone(), layers: 1, experts: 3 };
    let map = MapDocument::new(other, &map());
    let errors = [
        State::from_json(version.as_bytes()).unwrap_err(),
        State::from_json(phase.as_bytes()).unwrap_err(),
        MapDocument::from_json(version.as_bytes()).unwrap_err(),
        map.to_map(&ModelIdentity { name: long.clone(), digest: format!("{long} of another"), ..model() }).unwrap_err(),
    ];
    for error in errors {
        let said = error.to_string();
        assert!(
            said.chars().count() <= 450 && !said.contains(crate::words::is_hidden),
            "{} characters: {said}",
            said.len()
        );
    }
    let place = State::from_json(phase.as_bytes()).unwrap_err().to_string();
    assert!(place.starts_with("not a valid document: invalid type: ") && place.contains(" column "), "{place}");
}
