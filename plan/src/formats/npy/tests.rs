use super::*;

/// A file with the header and values given, padded as NumPy pads it.
fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let length_bytes = if version == 1 { 2 } else { 4 };
    let unpadded = MAGIC.len() + 2 + length_bytes + header.len() + 1;
    let header = format!("{header}{}\n", " ".repeat(unpadded.next_multiple_of(64) - unpadded));
    let length = &(header.len() as u32).to_le_bytes()[..length_bytes];
    [MAGIC, &[version, 0], length, header.as_bytes(), data].concat()
}

fn header(descr: &str, order: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
}

fn refused(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

const ROWS: [u8; 6] = [0, 1, 2, 3, 4, 255];

#[test]
fn integers_of_every_size_are_read() {
    let rows = |size: usize| -> Vec<u8> {
        ROWS.iter().flat_map(|&value| std::iter::once(value).chain(std::iter::repeat_n(0, size - 1))).collect()
    };
    for (descr, size) in
        [("|u1", 1), ("<u1", 1), ("<u2", 2), ("<u4", 4), ("<u8", 8), ("<i2", 2), ("<i4", 4), ("<i8", 8)]
    {
        for version in [1, 2] {
            let array = read(&file(version, &header(descr, "False", "(2, 3)"), &rows(size)));
            let expected = Array { shape: vec![2, 3], values: ROWS.map(u64::from).to_vec() };
            assert_eq!(array, Ok(expected), "{descr} {version}");
        }
    }
    let most = file(1, &header("<u8", "False", "(1, 1)"), &[255; 8]);
    assert_eq!(read(&most).map(|array| array.values), Ok(vec![u64::MAX]));
}

#[test]
fn fortran_order_is_turned_around() {
    let array = read(&file(1, &header("|u1", "True", "(2, 3)"), &ROWS)).unwrap();
    assert_eq!(array.values, [0, 2, 4, 1, 3, 255]);
    let cube = read(&file(1, &header("|u1", "True", "(2, 3, 1)"), &ROWS)).unwrap();
    assert_eq!((cube.shape, cube.values), (vec![2, 3, 1], vec![0, 2, 4, 1, 3, 255]));
}

#[test]
fn the_header_may_be_written_in_other_ways() {
    for text in [
        r#"{"shape": (6,), "fortran_order": False, "descr": "|u1"}"#,
        "{'descr':'|u1','fortran_order':False,'shape':(6,)}",
        "{ 'fortran_order' : False , 'descr' : '|u1' , 'shape' : ( 6 , ) , }",
    ] {
        assert_eq!(read(&file(1, text, &ROWS)).map(|array| array.shape), Ok(vec![6]), "{text}");
    }
    assert_eq!(read(&file(1, &header("|u1", "False", "()"), &[7])).map(|array| array.shape), Ok(vec![]));
}

#[test]
fn what_is_no_such_file_is_refused() {
    assert_eq!(refused(b"PK\x03\x04"), "no .npy file: it does not begin with \\x93NUMPY");
    let version = "version 3.0; versions 1.0 and 2.0 are read, which numpy.save writes";
    assert!(refused(&file(3, &header("|u1", "False", "(6,)"), &ROWS)).ends_with(version));
}

#[test]
fn truncated_files_and_files_with_more_than_they_say_are_refused() {
    let whole = file(1, &header("<u2", "False", "(1, 3)"), &ROWS);
    assert!(read(&whole).is_ok());
    for length in 0..whole.len() {
        let error = read(&whole[..length]).unwrap_err();
        match length {
            0..6 => assert_eq!(error, NpyError::Magic),
            6..128 => assert_eq!(error, NpyError::HeaderCut { found: length }),
            _ => assert!(matches!(error, NpyError::Length { .. }), "{length}: {error:?}"),
        }
    }
    assert_eq!(
        refused(&[&whole[..], &[0]].concat()),
        "an array of shape [1, 3] and type <u2 has 6 bytes, the file has 7; it is truncated or has something after its end"
    );
    let huge = file(1, &header("<u8", "False", "(4294967296, 4294967296)"), &ROWS);
    assert!(refused(&huge).contains("has more bytes than any file"), "{}", refused(&huge));
}

#[test]
fn types_that_are_no_counts_are_refused_with_what_to_do() {
    for descr in ["<f1", "<f3", "<f16", "<c8", "|b1", "<U3", "|O", "<u3", "u4", "", "<", "=u4", "|u4"] {
        let message = format!("values of type {descr}; counts must be numbers: save them with array.astype('<u4')");
        assert_eq!(refused(&file(1, &header(descr, "False", "(1, 6)"), &ROWS)), message);
    }
    let records = "{'descr': [('a', '<u4')], 'fortran_order': False, 'shape': (1,), }";
    assert!(refused(&file(1, records, &ROWS)).starts_with("values of type of records"));
    let big = refused(&file(1, &header(">u2", "False", "(1, 3)"), &ROWS));
    assert_eq!(big, "values of type >u2 are big-endian; save them with array.astype('<u4')");
    let negative = file(1, &header("<i2", "False", "(1, 2)"), &[1, 0, 255, 255]);
    assert_eq!(refused(&negative), "value 1 is negative; counts are not");
}

#[test]
fn broken_headers_are_refused() {
    for (text, what) in [
        ("'descr': '|u1'", "is no dictionary"),
        ("{descr: '|u1'}", "has a key that is no text"),
        ("{'descr' '|u1'}", "has a key without a value"),
        ("{'descr': 5}", "has a descr that is no text"),
        ("{'fortran_order': 0}", "has a fortran_order that is no truth value"),
        ("{'shape': (2, x)}", "has a shape that is no tuple of numbers"),
        ("{'shape': (2, -3)}", "has a shape that is no tuple of numbers"),
        ("{'shape': (2,, 3)}", "has a shape that is no tuple of numbers"),
        ("{'shape': [2, 3]}", "has a shape that is no tuple of numbers"),
        ("{'strides': (2,)}", "has an unknown key"),
        ("{'shape': (2,) 'descr': '|u1'}", "has something between a value and the next key"),
        ("{'fortran_order': False, 'shape': (6,)}", "has no descr"),
        ("{'descr': '|u1', 'shape': (6,)}", "has no fortran_order"),
        ("{'descr': '|u1', 'fortran_order': False}", "has no shape"),
    ] {
        assert_eq!(refused(&file(1, text, &ROWS)), format!("the header of the .npy file {what}"), "{text}");
    }
    let bytes = [MAGIC, &[1, 0, 1, 0, 0xff]].concat();
    assert_eq!(refused(&bytes), "the header of the .npy file is no text");
}

/// A file of one row of these values, as NumPy keeps them.
fn of_values(descr: &str, count: usize, data: &[u8]) -> Vec<u8> {
    file(1, &header(descr, "False", &format!("({count},)")), data)
}

#[test]
fn whole_numbers_are_read_from_types_that_have_fractions() {
    let halves: Vec<u8> =
        [0x0000_u16, 0x3c00, 0x4500, 0x7bff, 0x8000].iter().flat_map(|bits| bits.to_le_bytes()).collect();
    assert_eq!(read(&of_values("<f2", 5, &halves)).unwrap().values, [0, 1, 5, 65504, 0]);
    let singles: Vec<u8> = [0.0_f32, 3.0, 16_777_216.0, -0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(read(&of_values("<f4", 4, &singles)).unwrap().values, [0, 3, 16_777_216, 0]);
    let doubles: Vec<u8> = [1e15_f64, 12.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(read(&of_values("<f8", 2, &doubles)).unwrap().values, [1_000_000_000_000_000, 12]);
}

#[test]
fn numbers_that_are_no_counts_are_named() {
    let of = |value: f64| refused(&of_values("<f8", 2, &[1.0_f64.to_le_bytes(), value.to_le_bytes()].concat()));
    let fraction =
        |shown: &str| format!("value 1 is {shown}, which is no count of tokens; save counts with array.astype('<u4')");
    assert_eq!(of(2.5), fraction("2.5"));
    assert_eq!(of(f64::NAN), fraction("NaN"));
    assert_eq!(of(f64::INFINITY), fraction("inf"));
    assert_eq!(of(9_007_199_254_740_992.0), fraction("9007199254740992"));
    assert_eq!(of(-1.0), "value 1 is negative; counts are not");
    assert!(of(5e-324).contains("no count"), "{}", of(5e-324));
}
