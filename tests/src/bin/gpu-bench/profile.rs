//! What the kernels of products keep busy, as NVIDIA's profiler says it. It repeats each launch with cold caches, so that weights come from
//! memory, and its times are no step's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::figures::{Figures, rounded};

/// Names of the kernels that are looked at, as a regular expression.
const KERNELS: &str = "regex:product|gated";
/// Launches of them that are let go by, and that are looked at.
const SKIPPED: &str = "8";
const COUNT: &str = "16";

/// What is asked of each, and how it is told.
const METRICS: [(&str, &str); 3] = [
    ("gpu__time_duration.sum", "ns"),
    ("dram__throughput.avg.pct_of_peak_sustained_elapsed", "memory %"),
    ("sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active", "tensor cores %"),
];

/// What is profiled of a shape: a decode step's tokens, and a prompt's.
const TOKENS: [usize; 2] = [64, 4096];
const SMALL_TOKENS: [usize; 1] = [4];

pub fn run(small: bool, profiler: &Path, figures: &Figures) -> Result<()> {
    let (shape, tokens) = if small { ("small", &SMALL_TOKENS[..]) } else { ("qwen3-30b-a3b", &TOKENS[..]) };
    for tokens in tokens {
        let metrics = METRICS.map(|(metric, _)| metric).join(",");
        let mut command = Command::new(profiler);
        command.args(["--csv", "--page", "details", "--print-units", "base", "--clock-control", "none"]);
        command.args(["--kernel-name", KERNELS, "--launch-skip", SKIPPED, "--launch-count", COUNT, "--kill", "on"]);
        command.args(["--metrics", &metrics]).arg(std::env::current_exe()?).args(small.then_some("--small"));
        command.args(["products", "--shape", shape, "--tokens", &tokens.to_string()]);
        let output = command.output().with_context(|| format!("{} does not start", profiler.display()))?;
        let told = String::from_utf8_lossy(&output.stdout);
        // How the program ended says nothing, as the profiler kills it.
        let kernels = averages(&told);
        if kernels.is_empty() {
            let mut words = told.lines().chain(std::str::from_utf8(&output.stderr).unwrap_or_default().lines());
            let last = words.rfind(|line| line.starts_with("==ERROR==") || line.starts_with("==WARNING=="));
            let reason = last.unwrap_or("the profiler said nothing of a kernel of products");
            figures.tell(shape, &[("tokens", json!(tokens)), ("not measured", json!(reason))]);
        }
        ensure!(!kernels.is_empty(), "no kernel was profiled ({}): {told}", output.status);
        for Averages { kernel, launches, values } in kernels {
            let mut line = vec![("tokens", json!(tokens)), ("launches", json!(launches))];
            for ((_, name), value) in METRICS.iter().zip(values) {
                line.push((name, value.map_or(Value::Null, rounded)));
            }
            figures.tell(&kernel, &line);
        }
    }
    Ok(())
}

/// Of all launches of a kernel.
#[derive(Debug, PartialEq)]
struct Averages {
    kernel: String,
    launches: usize,
    /// Of each metric; none of one that was not told.
    values: [Option<f64>; METRICS.len()],
}

/// What the profiler's lines say: a line of names, then a line for each metric of each launch.
fn averages(text: &str) -> Vec<Averages> {
    let mut lines = text.lines().map(fields);
    let Some(names) = lines.find(|names| names.iter().any(|name| name == "Metric Name")) else { return Vec::new() };
    let column = |name: &str| names.iter().position(|other| other == name);
    let (Some(kernel), Some(metric), Some(value)) =
        (column("Kernel Name"), column("Metric Name"), column("Metric Value"))
    else {
        return Vec::new();
    };
    let mut kernels: Vec<(String, [Vec<f64>; METRICS.len()])> = Vec::new();
    for line in lines.filter(|line| line.len() == names.len()) {
        let place = METRICS.iter().position(|(name, _)| *name == line[metric]);
        // Thousands may stand between commas.
        let (Some(place), Ok(value)) = (place, line[value].replace(',', "").parse()) else { continue };
        let name = line[kernel].split('(').next().unwrap_or_default().trim();
        if let Some((_, values)) = kernels.iter_mut().find(|(other, _)| other == name) {
            values[place].push(value);
        } else {
            let mut values: [Vec<f64>; METRICS.len()] = Default::default();
            values[place].push(value);
            kernels.push((name.to_owned(), values));
        }
    }
    let average = |values: &Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let averages = |(kernel, values): (String, [Vec<f64>; METRICS.len()])| Averages {
        kernel,
        launches: values.iter().map(Vec::len).max().unwrap_or(0),
        values: values.each_ref().map(average),
    };
    kernels.into_iter().map(averages).collect()
}

/// Fields between commas, of which some are between quotes.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut is_quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => fields.last_mut().expect("there is a field from the beginning").push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_of_a_kernel_are_put_together() {
        let text = r#"==PROF== Connected to process 7
{"stage":"products","what":"small"}
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","gated_bf16(ProductParameters)","gpu__time_duration.sum","nsecond","1,000"
"0","7","gated_bf16(ProductParameters)","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","80"
"1","7","product_bf16(ProductParameters)","gpu__time_duration.sum","nsecond","500"
"2","7","gated_bf16(ProductParameters)","gpu__time_duration.sum","nsecond","3,000"
"2","7","gated_bf16(ProductParameters)","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","n/a"
"2","7","gated_bf16(ProductParameters)","launch__registers_per_thread","register","128"
"#;
        let averages = averages(text);
        let of = |kernel: &str, launches, values| Averages { kernel: kernel.to_owned(), launches, values };
        assert_eq!(
            averages,
            [of("gated_bf16", 2, [Some(2000.0), Some(80.0), None]), of("product_bf16", 1, [Some(500.0), None, None])]
        );
        assert_eq!(super::averages("==ERROR== ERR_NVGPUCTRPERM\n"), []);
    }

    #[test]
    fn a_comma_between_quotes_is_of_its_field() {
        assert_eq!(fields(r#""a","b,c",d"#), ["a", "b,c", "d"]);
    }
}
