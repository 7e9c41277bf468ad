use super::*;
use crate::ids::LayerId;
use crate::map::MapShape;
use crate::wire::Provenance;

fn model() -> ModelIdentity {
    ModelIdentity { name: "small".to_owned(), digest: "d1".to_owned(), layers: 1, experts: 4 }
}

fn map() -> ExpertMap {
    ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 3 }).unwrap()
}

#[test]
fn a_map_is_read_in_whatever_format_it_is() {
    let document = MapDocument::new(model(), &map());
    let provenance = Provenance { window: 1, window_steps: 1, window_pairs: 1, epoch: 1, ratio: 1.0 };
    let recorded = RecordedMap { map: document.clone(), provenance };
    for json in [
        serde_json::to_string(&document).unwrap(),
        serde_json::to_string(&recorded).unwrap(),
        vllm_ascend::write(&map()),
    ] {
        assert_eq!(read(json.as_bytes(), &model(), 2).map(|found| found.map), Ok(map()), "{json}");
    }
}

#[test]
fn what_is_served_starts_from_a_map_of_any_engine() {
    for format in Format::ALL {
        let text = format.write(&map(), &model(), 0).unwrap();
        let found = read(text.as_bytes(), &model(), 2).unwrap();
        assert_eq!((found.format, found.map), (format, map()), "{text}");
        let larger = ModelIdentity { experts: 5, ..model() };
        assert!(read(text.as_bytes(), &larger, 2).is_err(), "{text}");
    }
    let vllm = Format::Vllm.write(&map(), &model(), 0).unwrap();
    let uneven = read(vllm.as_bytes(), &model(), 4).unwrap_err().to_string();
    assert!(uneven.contains("4 ranks cannot share 6 physical experts evenly"), "{uneven}");
}

#[test]
fn maps_are_read_as_yaml_too() {
    for format in Format::ALL {
        let text = format.write(&map(), &model(), 0).unwrap();
        let value = document(text.as_bytes()).unwrap();
        let yaml = serde_saphyr::to_string(&value).unwrap();
        let found = read_any(yaml.as_bytes(), &known()).unwrap_or_else(|error| panic!("{error}: {yaml}"));
        assert_eq!((found.format, found.map), (format, map()), "{yaml}");
        assert_eq!(read_any(value.to_string().as_bytes(), &known()).unwrap().map, map(), "as JSON");
    }
}

#[test]
fn layers_for_further_tokens_are_left_out_where_the_model_is_known_to_have_them() {
    let both = ExpertMap::contiguous(MapShape { layers: 3, experts: 4, ranks: 2, slots_per_rank: 3 }).unwrap();
    for format in Format::ALL.into_iter().filter(|&format| format != Format::Swift) {
        let text = format.write(&both, &model(), 0).unwrap();
        let found = read_any(text.as_bytes(), &Expected { mtp_layers: 2, ..known() }).unwrap();
        assert_eq!((found.map, found.mtp_layers), (map(), 2), "{format}");
        assert!(read_any(text.as_bytes(), &Expected { mtp_layers: 1, ..known() }).is_err(), "{format}");
    }
}

#[test]
fn what_is_in_no_known_format_is_refused() {
    for text in [&br#"{"layers": 4}"#[..], b"layers: 4"] {
        assert_eq!(read(text, &model(), 2), Err(FormatError::Unknown));
    }
    for text in [&b"words"[..], b"{", b"\xff", b"a: b: c", b""] {
        assert!(matches!(read(text, &model(), 2), Err(FormatError::Json { .. })), "{text:?}");
    }
}

#[test]
fn what_is_wrong_in_a_known_format_is_said_in_its_words() {
    let refused = |json: &str| read(json.as_bytes(), &model(), 2).unwrap_err().to_string();
    let version = r#"version "v9" is not known here, only "swiftbalancer.io/v1""#;
    assert_eq!(refused(r#"{"version": "v9"}"#), version);
    assert_eq!(refused(r#"{"map": {"version": "v9"}}"#), version);
    let count = "expert map of vllm-ascend: moe_layer_count is 1, layer_list has 0 layers";
    assert_eq!(refused(r#"{"moe_layer_count": 1, "layer_list": []}"#), count);
}

fn known() -> Expected {
    Expected { layers: Some(1), experts: Some(4), ranks: Some(2), ..Expected::default() }
}

#[test]
fn a_map_is_read_in_every_format_that_it_is_written_in() {
    for format in Format::ALL {
        for dense_layers in [0, 2] {
            let text = format.write(&map(), &model(), dense_layers).unwrap();
            let found = read_any(text.as_bytes(), &Expected { dense_layers, ..known() });
            let model = (format == Format::Swift).then(model);
            let whole = Found { format, map: map(), model, second_copies: Vec::new(), mtp_layers: 0 };
            assert_eq!(found, Ok(whole), "{text}");
        }
        assert_eq!(format.as_str().parse(), Ok(format));
    }
    assert_eq!(
        "eplb".parse::<Format>().unwrap_err().to_string(),
        "no format is called \"eplb\"; the formats are swift, vllm-ascend, vllm, sglang and trtllm"
    );
}

#[test]
fn dimensions_other_than_expected_are_refused_in_every_format() {
    for format in Format::ALL {
        let text = format.write(&map(), &model(), 0).unwrap();
        for expected in [
            Expected { layers: Some(2), ..known() },
            Expected { experts: Some(5), ..known() },
            Expected { ranks: Some(4), ..known() },
        ] {
            let refused = read_any(text.as_bytes(), &expected).unwrap_err().to_string();
            assert!(refused.contains(format.as_str()), "{format} {expected:?}: {refused}");
        }
    }
    let text = Format::VllmAscend.write(&map(), &model(), 0).unwrap();
    let refused = read_any(text.as_bytes(), &Expected { ranks: Some(4), ..known() }).unwrap_err().to_string();
    assert_eq!(refused, "expert map of vllm-ascend: 2 ranks instead of 4");
}

#[test]
fn a_second_copy_is_kept_as_it_works_or_repaired_in_every_format_of_other_engines() {
    let rows = |row: &str| format!("[{row}]");
    let device = |id: u32, experts: &str| format!(r#"{{"device_id": {id}, "device_expert": [{experts}]}}"#);
    let ascend = format!(
        r#"{{"moe_layer_count": 1, "layer_list": [{{"layer_id": 0, "device_count": 2, "device_list": [{}, {}]}}]}}"#,
        device(0, "0, 1, 0"),
        device(1, "2, 3, 1"),
    );
    let row = "[0, 1, 0, 2, 3, 1]";
    for text in [
        ascend,
        rows(row),
        format!(r#"{{"physical_to_logical_map": {}}}"#, rows(row)),
        format!("initial_global_assignments: {{0: {row}}}\nnum_slots: 6\n"),
    ] {
        let kept = read_any(text.as_bytes(), &known()).unwrap();
        let [second] = kept.second_copies[..] else { panic!("{text}: {kept:?}") };
        assert_eq!((second.layer.0, second.rank.0, second.expert.0, second.stand_in.0), (0, 0, 0, 2), "{text}");
        assert_eq!(kept.map.layer(LayerId(0)), [0, 1, 2, 2, 3, 1].map(crate::ids::ExpertId), "{text}");
        let found = read_any(text.as_bytes(), &Expected { repair: true, ..known() }).unwrap();
        assert_eq!(found.map.layer(LayerId(0)), [0, 1, 2, 0, 3, 1].map(crate::ids::ExpertId), "{text}");
    }
}

#[test]
fn a_load_and_formats_without_ranks_are_refused_with_what_to_do() {
    let load = read_any(br#"{"logical_count": [[1]]}"#, &known()).unwrap_err().to_string();
    assert_eq!(load, "a load, not an expert map: plan from it with `kubectl moe plan --load`");
    let sglang = Format::Sglang.write(&map(), &model(), 0).unwrap();
    let ranks = read_any(sglang.as_bytes(), &Expected::default()).unwrap_err().to_string();
    assert!(ranks.contains("give them with --ranks"), "{ranks}");
}

#[test]
fn only_our_own_format_has_ranks_with_unequal_slots() {
    let slots = crate::slots::RankSlots::new([3, 1]);
    let unequal = ExpertMap::contiguous_on(1, 4, slots).unwrap();
    for format in Format::ALL.into_iter().filter(|&format| format != Format::Swift) {
        let refused = format.write(&unequal, &model(), 0);
        assert_eq!(refused, Err(WriteError::UnequalSlots { format }));
    }
}
