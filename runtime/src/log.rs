//! The log on standard error: what is logged, in which form, and that nothing from outside breaks a line or speaks to a
//! terminal.

use std::env::{self, VarError};
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;

use plan::words::{is_hidden, with_causes};
use runtime::args::LogFormat;
use runtime::quoted::{Quoted, one_line};
use runtime::threads::{is_attempting, panic_words};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Target of what is told whatever `RUST_LOG` says: why the process ends.
pub const ALWAYS: &str = "swiftbalancer_runtime";

/// Variable with the filter.
const VARIABLE: &str = "RUST_LOG";

/// Logs from now on. A panic is logged as everything else, with the thread's name.
pub fn start(format: LogFormat) {
    let (filter, problem) = filter(&env::var(VARIABLE));
    let colours = colours(io::stderr().is_terminal(), |name| env::var(name).ok());
    let log = subscriber(format, filter, colours, io::stderr);
    tracing::subscriber::set_global_default(log).expect("the log is started once");
    std::panic::set_hook(Box::new(panicked));
    if let Some(problem) = problem {
        tracing::warn!(target: ALWAYS, "{problem}");
    }
}

fn panicked(panic: &PanicHookInfo<'_>) {
    if is_attempting() {
        return;
    }
    let thread = std::thread::current();
    let (thread, place) = (thread.name().unwrap_or("unnamed"), panic.location().map(ToString::to_string));
    let place = place.unwrap_or_default();
    tracing::error!(target: ALWAYS, thread, place, "a thread panicked: {}", panic_words(panic.payload()));
}

/// What is logged, and what is wrong with the variable that says so.
fn filter(variable: &Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let otherwise = |problem| (EnvFilter::new("info"), problem);
    match variable {
        Ok(text) if !text.trim().is_empty() => match EnvFilter::builder().parse(text) {
            Ok(filter) => (filter, None),
            Err(error) => {
                let text = Quoted::<64>::new(text);
                otherwise(Some(format!("{VARIABLE} is '{text}', which is no filter ({error}): info is logged")))
            }
        },
        Ok(_) | Err(VarError::NotPresent) => otherwise(None),
        Err(VarError::NotUnicode(_)) => otherwise(Some(format!("{VARIABLE} is no text: info is logged"))),
    }
}

/// Whether lines are coloured: on a terminal that knows colours, if nobody has said no (no-color.org, bixense.com/clicolors).
fn colours(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name: &str, value: &str| variable(name).is_some_and(|found| found == value);
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    if set("NO_COLOR") {
        return false;
    }
    let forced = set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0");
    forced || (terminal && !is("TERM", "dumb") && !is("CLICOLOR", "0"))
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, colours: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let always = |event: &Metadata<'_>| event.target() == ALWAYS && *event.level() <= Level::WARN;
    let filter = filter.or(filter_fn(always).with_max_level_hint(Level::WARN));
    // Whoever reads the log may be gone, as `head` is: that is no reason to panic.
    let log = tracing_subscriber::fmt::layer().log_internal_errors(false).with_ansi(colours);
    let log = match format {
        LogFormat::Text => log.fmt_fields(Fields).with_writer(writer).boxed(),
        LogFormat::Json => log.json().with_writer(Plain(writer)).boxed(),
    };
    tracing_subscriber::registry().with(log.with_filter(filter))
}

/// Fields of a line: `key=value`, and the message as it is, on one line.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, first: true, written: Ok(()) };
        fields.record(&mut line);
        line.written
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    first: bool,
    written: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        let space = if std::mem::take(&mut self.first) { "" } else { " " };
        let value = one_line(value);
        self.written = self.written.and_then(|()| match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name => write!(self.writer, "{space}{name}={value}"),
        });
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.write(field, &with_causes(value));
    }
}

/// Writes lines of JSON, in which what cannot be seen and does something is escaped too where JSON would let it stand.
struct Plain<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Plain<W> {
    type Writer = Plain<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Plain(self.0.make_writer())
    }
}

impl<W: Write> Write for Plain<W> {
    /// A line comes whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let stands = |letter: char| is_hidden(letter) && letter != '\n';
        if text.chars().any(stands) {
            let escape = |letter: char| {
                if stands(letter) {
                    let units = letter
                        .encode_utf16(&mut [0; 2])
                        .iter()
                        .map(|unit| format!("\\u{unit:04x}"))
                        .collect::<Vec<_>>();
                    units.concat()
                } else {
                    letter.to_string()
                }
            };
            self.0.write_all(text.chars().map(escape).collect::<String>().as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of `events`.
    fn logged(format: LogFormat, variable: &str, events: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let log = subscriber(format, filter(&Ok(variable.to_owned())).0, false, move || writer.clone());
        tracing::subscriber::with_default(log, events);
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn why_a_process_ends_is_told_whatever_the_filter() {
        for variable in ["off", "error", "nothing=trace", "runtime=off,swiftbalancer_runtime=off"] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let log = logged(format, variable, || {
                    tracing::error!(target: ALWAYS, "no port");
                    tracing::info!("something else");
                });
                assert!(log.contains("no port") && !log.contains("something else"), "{variable}: {log}");
            }
        }
    }

    #[test]
    fn a_filter_that_is_none_is_told_and_an_empty_one_is_the_usual() {
        for (variable, problem) in [
            (Ok("info=loud=1".to_owned()), Some("RUST_LOG is 'info=loud=1', which is no filter (")),
            (Ok("runtime=\u{1b}[31m".to_owned()), Some("RUST_LOG is 'runtime=\\u{1b}[31m', which is no filter (")),
            (Ok(" ".to_owned()), None),
            (Ok("warn".to_owned()), None),
            (Err(VarError::NotPresent), None),
            (Err(VarError::NotUnicode("x".into())), Some("RUST_LOG is no text: info is logged")),
        ] {
            let (filter, found) = filter(&variable);
            assert_eq!(found.is_some(), problem.is_some(), "{variable:?}: {found:?}");
            assert!(found.unwrap_or_default().starts_with(problem.unwrap_or_default()), "{variable:?}");
            assert_eq!(filter.to_string(), if variable == Ok("warn".to_owned()) { "warn" } else { "info" });
        }
    }

    #[test]
    fn nothing_from_outside_breaks_a_line_or_speaks_to_a_terminal() {
        let words = "a\nb\r\u{1b}[31m\u{7f}\u{9b}2J\u{0}\u{202e}\u{e0041}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format, "info", || {
                let error = io::Error::other(words);
                tracing::info!(words, shown = %words, error = &error as &dyn std::error::Error, "said: {words}");
            });
            let line = log.strip_suffix('\n').unwrap();
            assert!(!line.contains(is_hidden), "{line:?}");
            if matches!(format, LogFormat::Json) {
                let fields = serde_json::from_str::<serde_json::Value>(line).unwrap()["fields"].clone();
                assert_eq!((&fields["words"], &fields["shown"]), (&words.into(), &words.into()));
            }
        }
    }

    #[test]
    fn a_line_has_its_message_and_its_fields_with_the_causes_of_an_error() {
        let log = logged(LogFormat::Text, "info", || {
            let error = anyhow::anyhow!("no space").context("the map is not written");
            let error: &dyn std::error::Error = error.as_ref();
            tracing::info!(ratio = 0.5, count = 3, name = "tiny moe", error, "window closed");
        });
        let line = log.split_once("log::tests: ").unwrap().1;
        let fields = r#"window closed ratio=0.5 count=3 name="tiny moe" error=the map is not written: no space"#;
        assert_eq!(line, format!("{fields}\n"));
    }

    #[test]
    fn lines_are_coloured_where_colours_are_wanted_and_known() {
        for (terminal, variables, coloured) in [
            (true, &[][..], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (true, &[("TERM", "dumb")], false),
            (true, &[("TERM", "xterm")], true),
            (true, &[("CLICOLOR", "0")], false),
            (true, &[("CLICOLOR", "1")], true),
            (false, &[("CLICOLOR_FORCE", "1")], true),
            (false, &[("CLICOLOR_FORCE", "0")], false),
            (false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(colours(terminal, variable), coloured, "{terminal} {variables:?}");
        }
    }
}
