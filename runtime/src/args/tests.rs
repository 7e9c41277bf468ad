//! What command lines mean, and which are refused.

use super::*;

#[test]
fn the_command_line_is_consistent() {
    <Arguments as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn a_refusal_quotes_little_of_what_was_given_and_nothing_that_a_terminal_obeys() {
    let (long, bad) = ("x".repeat(5000), "\u{1b}[31m\n".repeat(100));
    let local = ["x", "local", "--model", "m"];
    for given in [
        [&local[..], &["--ranks", &long]].concat(),
        [&local[..], &["--ranks", "2", "--listen", &bad]].concat(),
        [&local[..], &["--ranks", "2", &long]].concat(),
        [&local[..], &["--ranks", "2", &format!("--{long}")]].concat(),
        vec!["x", &long],
    ] {
        let error = shortened(Arguments::try_parse_from(given).unwrap_err()).to_string();
        let line = error.lines().next().unwrap();
        assert!(line.chars().count() <= 300 && !line.contains(char::is_control), "{error}");
    }
}

/// The least of each command, and the options that take a number.
fn numeric(command: &str) -> (Vec<&str>, Vec<String>) {
    let start = match command {
        "worker" => {
            let least = ["--advertise-address", "h", "--model", "m", "--coordinator", "c:1", "--secret-file", "s"];
            ["x", "worker"].into_iter().chain(least).collect()
        }
        "coordinator" => vec!["x", "coordinator", "--model", "m", "--secret-file", "s"],
        _ => vec!["x", command, "--model", "m"],
    };
    let all = <Arguments as clap::CommandFactory>::command();
    let options = all.find_subcommand(command).unwrap().get_arguments();
    let words = ["DIR", "FILE", "NAME", "HOST", "HOST:PORT", "POLICY", "LOG_FORMAT", "DEVICE", "MEANS", "seed:N"];
    let numbers = options.filter(|option| option.get_action().takes_values());
    let numbers = numbers.filter(|option| !words.contains(&option.get_value_names().unwrap()[0].as_str()));
    (start, numbers.map(|option| format!("--{}", option.get_long().unwrap())).collect())
}

fn refusal(start: &[&str], option: &str, value: &str) -> Option<String> {
    let required = [("--ranks", "2"), ("--rank", "1")].into_iter().filter(|&(name, _)| {
        let needs = if start[1] == "worker" { "--rank" } else { "--ranks" };
        name == needs && name != option
    });
    let required = required.flat_map(|(name, value)| [name, value]);
    let line = start.iter().copied().chain(required).chain([option, value]);
    Arguments::try_parse_from(line).err().map(|error| error.to_string())
}

#[test]
fn every_number_is_refused_out_of_its_bounds_and_taken_within_them() {
    for command in ["coordinator", "local", "worker"] {
        let (start, options) = numeric(command);
        assert!(options.len() >= 5, "{options:?}");
        for option in options.iter().filter(|option| *option != "--minimum-gain") {
            for value in
                ["-1", "NaN", "inf", "-inf", "", "1.5", "1e3", "some", "18446744073709551615", "18446744073709551616"]
            {
                let error = refusal(&start, option, value).unwrap_or_else(|| panic!("{option} {value} is taken"));
                assert!(error.contains(option.as_str()) && error.contains(" from "), "{option} {value}: {error}");
                let quoted = format!("'{value}'");
                assert!(value.is_empty() || error.contains(&quoted), "{option} {value}: {error}");
            }
            let error = refusal(&start, option, "x").unwrap();
            let bounds = error.lines().next().unwrap().rsplit_once(" from ").unwrap().1;
            let (first, last) = bounds.split_once(" to ").unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            for (number, taken) in [(Some(first), true), (Some(last), true), (first.checked_sub(1), false)] {
                let Some(number) = number else { continue };
                let found = refusal(&start, option, &number.to_string());
                assert_eq!(found.is_none(), taken, "{option} {number}: {found:?}");
            }
            assert!(refusal(&start, option, &(last + 1).to_string()).is_some(), "{option} {last} + 1");
        }
    }
}

#[test]
fn a_gain_is_a_share() {
    let (start, _) = numeric("local");
    for value in ["-0.1", "1", "1.5", "NaN", "inf", "-inf", "", "some", "18446744073709551615"] {
        let error = refusal(&start, "--minimum-gain", value).unwrap();
        assert!(error.contains("--minimum-gain") && error.contains("must be a number from 0 to below 1"), "{error}");
    }
    for value in ["0", "0.999", "1e-300"] {
        assert_eq!(refusal(&start, "--minimum-gain", value), None);
    }
}

#[test]
fn both_commands_that_serve_take_the_same_numbers() {
    assert!(numeric("coordinator").1.iter().all(|option| numeric("local").1.contains(option)));
}

#[test]
fn what_is_within_the_bounds_of_the_command_line_is_within_those_of_the_settings() {
    let (start, options) = numeric("local");
    for option in &options {
        let error = refusal(&start, option, "x").unwrap();
        let bounds = error.lines().next().unwrap().rsplit_once(" from ").unwrap().1;
        let Some((first, last)) = bounds.split_once(" to ") else { continue };
        for value in [first, last].into_iter().filter(|value| value.parse::<u64>().is_ok()) {
            let ranks = ["--ranks", "2"].into_iter().filter(|_| option != "--ranks");
            let line = start.iter().copied().chain(ranks).chain([option.as_str(), value]);
            let Command::Local(arguments) = Arguments::try_parse_from(line).unwrap().command else { panic!() };
            let settings = LocalSettings::try_from(*arguments).unwrap().coordinator;
            let refused = settings.prepare(0).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!refused.contains("whole number"), "{option} {value}: {refused}");
        }
    }
}

#[test]
fn names_are_addresses_to_listen_on() {
    for (command, option) in [
        ("local", "--listen"),
        ("local", "--admin-listen"),
        ("coordinator", "--listen"),
        ("coordinator", "--admin-listen"),
        ("coordinator", "--control-listen"),
        ("worker", "--listen"),
        ("worker", "--move-listen"),
        ("worker", "--health-listen"),
    ] {
        let (start, _) = numeric(command);
        for value in ["localhost:0", "[::1]:0", "ip6-localhost:0", ":0", "127.0.0.1:65535"] {
            assert_eq!(refusal(&start, option, value), None, "{command} {option} {value}");
        }
        for value in ["localhost", "8000", "localhost:65536", "no-such-name.invalid:1"] {
            let error = refusal(&start, option, value).unwrap();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
    }
}

#[test]
fn the_version_is_the_programs() {
    let version = Arguments::try_parse_from(["x", "--version"]).unwrap_err().to_string();
    assert_eq!(version, format!("swiftbalancer-runtime {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_policy_that_does_not_exist_is_refused_with_those_that_do() {
    let error =
        Arguments::try_parse_from(["x", "local", "--model", "m", "--ranks", "2", "--eplb-policy", "best"]).unwrap_err();
    assert!(error.to_string().contains("deepseek and swift"), "{error}");
}
