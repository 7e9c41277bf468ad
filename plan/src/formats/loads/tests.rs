use super::*;

fn load(rows: &[&[u64]]) -> ExpertLoad {
    ExpertLoad::from_rows(&rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>()).unwrap()
}

fn refused(json: &str) -> String {
    read(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn lists_are_one_window_or_several() {
    let one = read(b"[[1, 2], [3.0, 4]]").unwrap();
    assert_eq!(one, Loads { windows: vec![load(&[&[1, 2], &[3, 4]])], model: None, counts_dense_layers: false });
    let two = read(b" [[[1, 2]], [[3, 4]]]").unwrap();
    assert_eq!(two.windows, [load(&[&[1, 2]]), load(&[&[3, 4]])]);
}

#[test]
fn arrays_are_one_window_or_several() {
    let array = |shape: &[usize]| of_array(npy::Array { shape: shape.to_vec(), values: vec![1, 2, 3, 4] });
    assert_eq!(array(&[2, 2]).unwrap().windows, [load(&[&[1, 2], &[3, 4]])]);
    assert_eq!(array(&[2, 1, 2]).unwrap().windows, [load(&[&[1, 2]]), load(&[&[3, 4]])]);
    let wrong = array(&[4]).unwrap_err().to_string();
    assert_eq!(wrong, "an array of shape [4]; a load is [layers, experts] or [windows, layers, experts]");
    assert_eq!(of_array(npy::Array { shape: vec![0, 2], values: vec![] }), Err(LoadError::Empty));
}

#[test]
fn a_document_of_ours_names_its_model() {
    let model = ModelIdentity { name: "small".to_owned(), digest: "d1".to_owned(), layers: 1, experts: 2 };
    let document = LoadDocument::new(model.clone(), 1, 10, &load(&[&[5, 6]]));
    let found = read(&serde_json::to_vec(&document).unwrap()).unwrap();
    assert_eq!(found, Loads { windows: vec![load(&[&[5, 6]])], model: Some(model), counts_dense_layers: false });
    assert_eq!(refused(r#"{"version": "v9"}"#), r#"version "v9" is not known here, only "swiftbalancer.io/v1""#);
}

#[test]
fn a_dump_of_sglang_keeps_dense_layers_until_their_number_is_known() {
    let dump =
        read(br#"{"rank": 0, "logical_count": [[[0, 0], [1, 2]]], "average_utilization_rate_over_window": null}"#);
    let dump = dump.unwrap();
    assert_eq!(dump.windows, [load(&[&[0, 0], &[1, 2]])]);
    let cut = dump.clone().without_dense_layers(1).unwrap();
    assert_eq!(cut, Loads { windows: vec![load(&[&[1, 2]])], model: None, counts_dense_layers: false });
    assert_eq!(cut.clone().without_dense_layers(1), Ok(cut), "there are none left to take away");
    let only = dump.clone().without_dense_layers(2).unwrap_err().to_string();
    assert_eq!(only, "it has 2 layers, and the model is said to start with 2 dense layers");
    let loaded = read(br#"{"logical_count": [[1, 0], [1, 2]]}"#).unwrap().without_dense_layers(1);
    assert_eq!(loaded, Err(LoadError::NotDense { layer: 0, dense: 1 }));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    assert_eq!(refused("[[[1, 2]], [[1, -2]]]"), "window 1, layer 0, expert 1: -2 is no count of tokens");
    assert_eq!(refused("[[1, 2], [1, 2.5]]"), "window 0, layer 1, expert 1: 2.5 is no count of tokens");
    assert_eq!(refused("[[1, 2], [1]]"), "window 0, layer 1: 1 expert, layer 0 has 2");
    assert_eq!(
        refused("[[[1, 2]], [[1, 2], [3, 4]]]"),
        "window 1 has 2 layers of 2 experts, the first 1 of 2; they must be of one model"
    );
    assert!(refused("[[1, 2], 3]").starts_with("window 0: something else is where a list should be"));
    assert!(refused("[[[1, 2]], 3]").starts_with("window 1: something else is where a list should be"));
    for empty in ["[]", "[[]]", r#"{"logical_count": []}"#] {
        assert_eq!(refused(empty), "it has no windows, layers or experts", "{empty}");
    }
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    for words in ["words", "{", "a: b: c"] {
        assert!(refused(words).starts_with("neither a .npy file nor JSON, nor YAML"), "{words}");
    }
    assert!(refused("layers: 3").starts_with("not a load"), "it is YAML of something else");
    assert!(refused(r#"{"counts": [[1]]}"#).starts_with("not a load"));
    assert!(refused("5").starts_with("not a load"));
    assert!(refused(r#"{"logical_count": 5}"#).starts_with("logical_count is no list"));
    assert!(read(b"PK\x03\x04...").unwrap_err().to_string().starts_with("an archive"));
    let cut = read(b"\x93NUMPY\x01\x00").unwrap_err().to_string();
    assert_eq!(cut, "the .npy file ends within its header, after 8 bytes; it is truncated");
}
