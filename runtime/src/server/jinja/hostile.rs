//! Templates that try to take the process down: they end with an error, in bounded stack, time and memory.

use std::cell::Cell;

use jiff::Zoned;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{Given, IsLate, JinjaError, Template};

fn render(source: &str) -> Result<String, JinjaError> {
    render_until(source, &|| false)
}

fn render_until(source: &str, is_late: IsLate<'_>) -> Result<String, JinjaError> {
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>x</think>y"}]);
    let variables = vec![("messages".to_owned(), serde_json::from_value::<Given>(messages).unwrap())];
    Template::parse(source)?.render(variables, 1 << 20, &Zoned::default(), is_late)
}

/// Runs with half of what threads have.
fn with_little_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap()
}

#[test]
fn what_lies_in_one_another_without_end_is_refused_before_the_stack_ends() {
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for times in [50, 119, 1_000, 20_000] {
        let mut sources = vec![
            format!("{{{{ {} }}}}", nested("(", "1", ")", times)),
            format!("{{{{ {} }}}}", nested("[", "1", "]", times)),
            format!("{{{{ {} }}}}", nested("{1: ", "1", "}", times)),
            format!("{{{{ {}1 }}}}", "not ".repeat(times)),
            format!("{{{{ {}1 }}}}", "- ".repeat(times)),
            format!("{{{{ 1{} }}}}", " + 1".repeat(times)),
            format!("{{{{ 1{} }}}}", " or 0".repeat(times)),
            format!("{{{{ 1{} }}}}", " and 1".repeat(times)),
            format!("{{{{ 1{} }}}}", " if 1".repeat(times)),
            format!("{{{{ 1{} }}}}", " if 0 else 1".repeat(times)),
            format!("{{{{ 'a'{} }}}}", "|upper".repeat(times)),
            format!("{{{{ 'a'{} }}}}", ".upper()".repeat(times)),
            format!("{{{{ 'a'{} }}}}", "[0]".repeat(times)),
            format!("{{{{ {} }}}}", nested("'a'.join(", "'b'", ")", times)),
            format!("{{{{ {} }}}}", nested("'a'|replace('b', ", "'b'", ")", times)),
            nested("{% if 1 %}", "x", "{% endif %}", times),
            nested("{% for a in [1] %}", "x", "{% endfor %}", times),
            nested("{% filter upper %}", "x", "{% endfilter %}", times),
            nested("{% generation %}", "x", "{% endgeneration %}", times),
            format!("{{% set {} = 1 %}}", nested("(", "a, b", ")", times)),
        ];
        let call = |at| format!("{{% macro m{at}() %}}{{{{ m{}() }}}}{{% endmacro %}}", at + 1);
        let calls = (0..times).map(call).collect::<Vec<_>>().concat();
        sources.push(format!("{calls}{{{{ m0() }}}}"));
        for source in sources {
            let shown = source[..40].to_owned();
            let result = with_little_stack(move || render(&source));
            if times >= 1_000 {
                assert!(result.is_err(), "{times} of {shown}");
            }
        }
    }
}

#[test]
fn recursion_and_lists_in_lists_end() {
    for source in [
        "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{% call m() %}x{% endcall %}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{% for a in [1] if m() %}{% endfor %}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% set x %}{{ m() }}{% endset %}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% filter upper %}{% generation %}{{ m() ~ 'a' if true else m() }}{% endgeneration %}{% endfilter %}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ ns.x == ns.x }}",
        "{% set ns = namespace(x={}) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x}.items() %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x]|map('list') %}{% endfor %}{{ ns.x|list }}",
        "{% set ns = namespace(x='') %}{% for i in range(99999) %}{% set ns.x = ns.x.upper %}{% endfor %}",
        "{{ '{:{}}'.format('{:{}}', 9999999) }}",
        "{{ [1]|map('map', 'map', 'map', 'map')|list }}",
    ] {
        assert!(with_little_stack(move || render(source)).is_err(), "{source}");
    }
    let itself = "{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.all = [ns] %}{{ ns.me.me.all[0].me == ns }}";
    assert_eq!(render(itself).as_deref(), Ok("True"));
}

/// Each list, dictionary or tuple holds the one before twice: 200 of them hold 2^200 values.
#[test]
fn what_holds_the_same_twice_again_and_again_is_not_gone_through_without_end() {
    let doubled = |double: &str, rest: &str| {
        format!(
            "{{% set ns = namespace(a={{}}, b={{}}) %}}{{% for i in range(200) %}}{{% set x = ns.a %}}\
             {{% set ns.a = {double} %}}{{% set x = ns.b %}}{{% set ns.b = {double} %}}{{% endfor %}}{rest}"
        )
    };
    for (double, rest) in [
        ("[x, x]", "{{ ns.a == ns.b }}"),
        ("[x, x]", "{{ ns.a != ns.b }}"),
        ("[x, x]", "{{ ns.a < ns.b }}"),
        ("[x, x]", "{{ ns.a is eq(ns.b) }}"),
        ("[x, x]", "{{ ns.a in [ns.b] }}"),
        ("[x, x]", "{{ [ns.a].index(ns.b) }}"),
        ("[x, x]", "{{ [ns.a].count(ns.b) }}"),
        ("[x, x]", "{{ [ns.a, ns.b]|unique|list|length }}"),
        ("[x, x]", "{{ [ns.a, ns.b]|sort|length }}"),
        ("[x, x]", "{{ [ns.a, ns.b]|max|length }}"),
        ("[x, x]", "{{ [{'k': ns.a}, {'k': ns.b}]|groupby('k')|length }}"),
        ("[x, x]", "{{ ns.a }}"),
        ("[x, x]", "{{ ns.a|tojson }}"),
        ("[x, x]", "{% for i in range(2) %}{{ loop.changed(ns.a if i else ns.b) }}{% endfor %}"),
        ("{'a': x, 'b': x}", "{{ ns.a == ns.b }}"),
        ("(x, x)", "{{ ns.a == ns.b }}"),
    ] {
        let source = doubled(double, rest);
        assert!(with_little_stack(move || render(&source)).is_err(), "{double}, {rest}");
    }
    let keys = |rest: &str| doubled("(x, x)", rest).replace("a={}, b={}", "a=(), b=()");
    for rest in ["{{ {ns.a: 1} }}", "{{ {1: 1}[ns.a] }}", "{{ {1: 1}.get(ns.a) }}", "{{ ns.a in {1: 1} }}"] {
        let source = keys(rest);
        assert!(with_little_stack(move || render(&source)).is_err(), "{rest}");
    }
}

#[test]
fn generators_that_hold_the_same_twice_are_made_at_once() {
    let doubled = "{% set ns = namespace(x=[1]|select) %}{% for i in range(99) %}{% set x = ns.x %}\
                   {% set ns.x = [x, x]|select %}{% endfor %}{{ ns.x is iterable }}";
    assert_eq!(with_little_stack(move || render(doubled)).as_deref(), Ok("True"));
    let deeper = doubled.replace("99", "99999");
    assert!(with_little_stack(move || render(&deeper)).is_err());
}

/// Ends what makes about a hundred thousand steps, so that the test need not wait for all that a template may make.
fn is_counted(source: &str) -> bool {
    let looks = Cell::new(0);
    let is_late = || {
        looks.set(looks.get() + 1);
        looks.get() > 25
    };
    matches!(render_until(source, &is_late), Err(JinjaError::Limit(_)))
}

/// Each of these would come to its end if what it looks at were not counted.
#[test]
fn work_on_long_texts_and_many_names_takes_steps() {
    for work in [
        "s|length",
        "s|count",
        "s == t",
        "s != t",
        "s < t",
        "s in [t]",
        "[s].index(t)",
        "[s].count(t)",
        "(s, 1) == (t, 1)",
        "{'a': s} == {'a': t}",
        "s is eq(t)",
        "'x' in s",
        "s in d",
        "d[s]",
        "d.get(s)",
        "[s, t]|unique",
        "[s, t]|sort",
        "[s, t]|max",
        "s[40000]",
        "s[-40000]",
        "d|attr(s)",
        "s|int",
        "s|float",
        "strftime_now(s)",
        "'x'.strip(s)",
        "'x'.split(s)",
        "'x'.partition(s)",
        "'x'.replace(s, '')",
        "'x'.find(s)",
        "'x'.startswith(s)",
        "'x'.removeprefix(s)",
        "[1]|map(attribute=s)|list",
        "[1]|sort(attribute=s)",
        "'{x}'.format_map(d)",
        "many|dictsort",
        "names.a",
        "names['a']",
        "namespace(**many)",
        "dict(many)",
    ] {
        let source = format!(
            "{{% set s = 'é' * 50000 %}}{{% set t = 'é' * 50000 %}}{{% set d = {{s: 1, 'x': 1}} %}}\
             {{% set many = dict(range(2000)|map('string')|batch(2)|list) %}}{{% set names = namespace(**many) %}}\
             {{% for i in range(3000) %}}{{% if {work} %}}{{% endif %}}{{% endfor %}}"
        );
        let source = if work.contains("many") || work.contains("names") {
            source
        } else {
            source.split_once("{% set many").unwrap().0.to_owned()
                + source.split_once("names = namespace(**many) %}").unwrap().1
        };
        assert!(is_counted(&source), "{work}");
    }
    let sets = (0..1_000).map(|at| format!("{{% set a{at} = 1 %}}")).collect::<Vec<_>>().concat();
    assert!(is_counted(&format!("{sets}{{% for i in range(3000) %}}{{{{ b }}}}{{% endfor %}}")));
}

#[test]
fn one_value_compared_with_itself_is_not_gone_through() {
    let doubled = "{% set ns = namespace(x=[1]) %}{% for i in range(200) %}{% set x = ns.x %}\
                   {% set ns.x = [x, x] %}{% endfor %}{{ ns.x == ns.x }} {{ ns.x < ns.x }} {{ ns.x in [ns.x] }}";
    assert_eq!(render(doubled).as_deref(), Ok("True False True"));
}

#[test]
fn no_single_step_goes_on_without_end() {
    assert_eq!(render("{{ ('a' * 400000).strip('b' * 400000 ~ 'a') }}").as_deref(), Ok(""));
    for source in [
        "{{ range(1000)|list|tojson(indent=500000) }}",
        "{{ range(1000)|list|tojson(separators=['a' * 500000, '']) }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ ['A' * 500000] * 10000 |sort }}",
    ] {
        assert!(with_little_stack(move || render(source)).is_err(), "{source}");
    }
}

#[test]
fn rendering_ends_when_it_is_late() {
    let long = "{% for i in range(90000) %}{% endfor %}x";
    assert_eq!(render(long).as_deref(), Ok("x"));
    assert_eq!(render_until(long, &|| true), Err(JinjaError::Limit("time")));
}

/// What is no number is neither less nor more than any: where it ends up is open, but all of it comes out.
#[test]
fn what_has_no_order_is_sorted_without_a_panic() {
    let source = "{% set ns = namespace(x=[]) %}{% for i in range(997) %}\
                  {% set ns.x = ns.x + [('nan'|float) if i % 3 else i * 7919 % 997] %}{% endfor %}\
                  {{ ns.x|sort|length }} {{ ns.x|sort(reverse=true)|length }}";
    assert_eq!(render(source).as_deref(), Ok("997 997"));
    assert_eq!(render("{{ [3, 1, 2, true]|sort }}").as_deref(), Ok("[1, True, 2, 3]"));
    assert!(render("{{ [3, 'a', 2]|sort }}").is_err());
}

/// Templates of the table, changed at random: whatever comes of them, it is text or an error.
#[test]
fn changed_templates_never_end_the_process() {
    let mut random = StdRng::seed_from_u64(crate::protocol::tests::seed());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/texts/templates.json");
    let rows: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let is_quick = |row: &&Value| !row["name"].as_str().unwrap().starts_with("running away");
    let sources: Vec<&str> =
        rows.as_array().unwrap().iter().filter(is_quick).map(|row| row["template"].as_str().unwrap()).collect();
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "-",
        "+",
        "|",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'",
        "\"",
        "\\",
        "é",
        "🦀",
        "\u{0}",
        "\n",
        "*",
        "**",
        "%",
        "~",
        ":",
        ",",
        ".",
        "=",
        "0",
        "99999999999",
        "1e9",
        " if ",
        " else ",
        " for ",
        " in ",
        " is ",
        " not ",
        "none",
        "endfor",
        "endif",
        "messages",
        "range(9)",
        "#}",
        "{#",
        "{% raw %}",
    ];
    let mut texts = 0;
    for _ in 0..2_000 {
        let mut source: Vec<char> = sources[random.random_range(0..sources.len())].chars().collect();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..=source.len());
            let end = (at + random.random_range(0..6)).min(source.len());
            let piece = match random.random_range(0..3) {
                0 => "",
                _ => pieces[random.random_range(0..pieces.len())],
            };
            source.splice(at..end, piece.chars());
        }
        texts += usize::from(render(&source.into_iter().collect::<String>()).is_ok());
    }
    assert!(texts > 100, "only {texts} of the changed templates still render");
}
