//! That both sides of a launch mean the same.

use std::collections::BTreeMap;

use super::*;

const HEADER: &str = include_str!("../../../cu/parameters.h");

/// Structs of the header with their fields and the sizes of those, as C++ lays them out where there are no holes.
fn structs() -> BTreeMap<&'static str, Vec<(&'static str, usize)>> {
    let mut found: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    let mut open = None;
    for line in HEADER.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {")) {
            open = Some((name, Vec::new()));
        } else if line == "};" {
            found.extend(open.take());
        } else if let (Some((_, fields)), Some(field)) = (&mut open, line.strip_suffix(';')) {
            let (kind, name) = field.rsplit_once(' ').unwrap();
            let (name, count) = name.trim_end_matches(']').split_once('[').unwrap_or((name, "1"));
            let size: usize = match kind {
                _ if kind.ends_with('*') => 8,
                "uint32_t" | "float" => 4,
                "uint64_t" | "double" => 8,
                "TensorMap" => 128,
                other => found[other].iter().map(|(_, size)| size).sum(),
            };
            fields.push((name, size * count.parse::<usize>().unwrap()));
        }
    }
    found
}

/// `extern "C" KERNEL(threads, ..) name(GRID_CONSTANT const Parameters p)` of all sources.
fn entries() -> BTreeMap<String, (String, u32)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cu");
    let sources = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let kernels = sources.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let text: String = kernels.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines()
        .filter_map(|line| line.strip_prefix("extern \"C\" KERNEL("))
        .map(|line| {
            let (bounds, line) = line.split_once(") ").unwrap();
            let threads = bounds.split(',').next().unwrap();
            let (name, line) = line.split_once("(GRID_CONSTANT const ").unwrap();
            (name.to_owned(), (line.split_once(' ').unwrap().0.to_owned(), threads.parse().unwrap()))
        })
        .collect()
}

#[test]
fn every_kernel_of_the_sources_is_listed_with_its_parameters_and_threads() {
    let mut sources = entries();
    for (kernel, parameters) in KERNELS.iter().zip(PARAMETERS) {
        let source = sources.remove(kernel.name);
        assert_eq!(source, Some(((*parameters).to_owned(), kernel.threads)), "{}", kernel.name);
    }
    assert!(sources.is_empty(), "{sources:?} are not listed");
}

#[test]
fn every_struct_of_the_header_has_the_same_fields_here() {
    let mut header = structs();
    for (name, fields) in MIRRORED {
        assert_eq!(header.remove(name).as_deref(), Some(*fields), "{name}");
    }
    assert!(header.is_empty(), "{header:?} are not here");
}
