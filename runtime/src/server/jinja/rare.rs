//! Rare values: what is done is what Python does, and what is not done is refused by name.

use jiff::Zoned;

use super::{JinjaError, Template};

fn render(expression: &str) -> Result<String, JinjaError> {
    Template::parse(&format!("{{{{ {expression} }}}}"))?.render(Vec::new(), 1 << 16, &Zoned::default(), &|| false)
}

#[test]
fn what_needs_more_than_is_done_is_refused() {
    let digits = "9".repeat(60);
    for expression in [
        "1e39|int",
        "-1e39|int",
        "1e308|int",
        "'1e39'|int",
        &format!("'{digits}'|int"),
        &format!("'-{digits}'|int(5)"),
        "'%d' % 1e39",
        "'%i' % -1e39",
        "'%u'|format(1e300)",
        "'٣'|int",
        "'٣'|float",
        "'%5%' % ()",
        "'%-%' % ()",
        "'%(a)%' % {'a': 1}",
        "9007199254740993 / 3",
        "{}.items() == {}.items()",
        "[{}.keys()] == [{}.keys()]",
        "'a'.upper == 'a'.upper",
        "-(-(2 ** 126) * 2)",
        "(-(2 ** 126) * 2)|abs",
        "range(0, 2 ** 99, 2 ** 98)[::9][::9][::9]",
    ] {
        let outcome = render(expression);
        assert!(matches!(outcome, Err(JinjaError::Unsupported { .. })), "{expression}: {outcome:?}");
    }
    for expression in ["(1e308 * 10)|int", "'%d' % (1e308 * 10)", "'%d' % ('nan'|float)"] {
        let outcome = render(expression);
        assert!(matches!(outcome, Err(JinjaError::Failed { .. })), "{expression}: {outcome:?}");
    }
}

#[test]
fn numbers_are_compared_as_they_are() {
    for (expression, expected) in [
        ("9007199254740993 == 9007199254740992.0", "False"),
        ("9007199254740992 == 9007199254740992.0", "True"),
        ("9007199254740993 > 9007199254740992.0", "True"),
        ("9007199254740992.0 < 9007199254740993", "True"),
        ("9007199254740993 in [9007199254740992.0]", "False"),
        ("{9007199254740992.0: 1}[9007199254740993] is defined", "False"),
        ("1 == 1.0", "True"),
        ("1 < 1.5", "True"),
        ("-1 < -1.5", "False"),
        ("-2 < -1.5", "True"),
        ("1 < 1e300", "True"),
        ("1 > -1e300", "True"),
        ("0 == -0.0", "True"),
        ("true == 1.0", "True"),
        ("1 == 'nan'|float", "False"),
        ("1 < 'inf'|float", "True"),
        ("[9007199254740993, 9007199254740992.0]|min", "9007199254740992.0"),
    ] {
        assert_eq!(render(expression).as_deref(), Ok(expected), "{expression}");
    }
}

#[test]
fn whole_parts_are_exact() {
    for (expression, expected) in [
        ("1e38|int", "99999999999999997748809823456034029568"),
        ("'1e22'|int", "10000000000000000000000"),
        ("-1.9|int", "-1"),
        ("'inf'|int", "0"),
        ("'nan'|int(4)", "4"),
        ("('nan'|float)|int(4)", "4"),
        ("'+-1'|int(4)", "4"),
        ("'%d' % 1e38", "99999999999999997748809823456034029568"),
        ("'%d' % -7.9", "-7"),
        ("'%%' % ()", "%"),
        ("9007199254740992 / 2", "4503599627370496.0"),
        ("'abc'[-170141183460469231731687303715884105727]|default('none')", "none"),
    ] {
        assert_eq!(render(expression).as_deref(), Ok(expected), "{expression}");
    }
}

/// Letters that are two in one, of which the first alone is upper case, are neither upper nor lower case.
#[test]
fn letters_in_title_case_are_as_in_python() {
    for (expression, expected) in [
        ("'ǅ'.swapcase()", "ǅ"),
        ("'aǅB'.swapcase()", "Aǅb"),
        ("'ᾈ'.swapcase()", "ᾈ"),
        ("'aǅb'.title()", "Aǆb"),
        ("'ǅb ǆB'.title()", "ǅb ǅb"),
        ("'ǅx'.istitle()", "True"),
        ("'aǅ'.istitle()", "False"),
        ("'ǅ'.istitle()", "True"),
        ("'aǅ'.islower()", "False"),
        ("'AǅB'.isupper()", "False"),
        ("'ǅ'.isupper()", "False"),
        ("'aǅ' is lower", "False"),
        ("'Aǅ' is upper", "False"),
        ("'ab' is lower", "True"),
        ("'𝐀' is lower", "False"),
    ] {
        assert_eq!(render(expression).as_deref(), Ok(expected), "{expression}");
    }
}
