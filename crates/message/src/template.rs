//! Bodies by a template: minijinja, of which a user may use what can't run for long or make much of little.
//!
//! A template fills values in and chooses between texts; nothing repeats, and no value gets another name. So its work is
//! bounded by its length, and the texts that it makes by the number of operators that join some.

use std::io::{self, Write};

use bytes::Bytes;
use minijinja::machinery::{Token, tokenize};
use minijinja::value::Rest;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;
use thiserror::Error;

use crate::body::Body;

/// A template's length in characters at most.
const MAX_TEMPLATE: usize = 10_000;
/// The largest body that a template makes, in bytes.
pub const MAX_OUTPUT: usize = 256 << 10;
/// How many operators that join texts a template may have: each of them copies.
const MAX_JOINS: usize = 100;
/// What may stand behind `{%`.
const STATEMENTS: [&str; 4] = ["if", "elif", "else", "endif"];

/// Why a template makes no body; for whoever wrote it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// It has what templates may not have.
    #[error("{0}")]
    Refused(String),
    /// It is no template, or can't be filled in.
    #[error("line {line}: {reason}")]
    Failed {
        /// Where, from 1; 0 if unknown.
        line: usize,
        /// Why.
        reason: String,
    },
}

/// Tries a template out, with and without what a body may lack.
///
/// # Errors
/// When it can't be used.
pub fn check(template: &str) -> Result<(), TemplateError> {
    for sparse in [false, true] {
        render(template, &Body::sample(sparse))?;
    }
    Ok(())
}

/// A body by a template: the fields of `body` (a [`Body`], or its JSON) are its variables.
///
/// # Errors
/// When it can't be used, or makes more than [`MAX_OUTPUT`].
pub fn render(template: &str, body: &impl Serialize) -> Result<Bytes, TemplateError> {
    refuse_what_grows(template)?;
    let environment = environment();
    let compiled = environment.template_from_str(template).map_err(failed)?;
    let mut output = Limited::default();
    compiled
        .render_captured_to(body, &mut output)
        .map_err(|error| {
            if output.full {
                let reason = format!("the body is larger than {} kB", MAX_OUTPUT >> 10);
                return TemplateError::Refused(reason);
            }
            failed(error)
        })?;
    Ok(Bytes::from(output.bytes))
}

fn refuse_what_grows(template: &str) -> Result<(), TemplateError> {
    let refused = |reason: String| Err(TemplateError::Refused(reason));
    if template.chars().count() > MAX_TEMPLATE {
        return refused(format!("it is longer than {MAX_TEMPLATE} characters"));
    }
    let mut joins = 0;
    let mut statement = false;
    for token in tokenize(template, false, Default::default(), Default::default()) {
        let (token, span) = token.map_err(failed)?;
        let line = span.start_line;
        match token {
            Token::Ident(word) if statement && !STATEMENTS.contains(&word) => {
                return refused(format!(
                    "line {line}: {{% {word} %}} is not for templates of messages; there are if, elif, else and endif"
                ));
            }
            Token::Mul | Token::Pow => {
                return refused(format!(
                    "line {line}: {token} is not for templates of messages"
                ));
            }
            Token::Tilde | Token::Plus => joins += 1,
            _ => {}
        }
        statement = matches!(token, Token::BlockStart);
    }
    if joins > MAX_JOINS {
        return refused(format!("it has more than {MAX_JOINS} of ~ and +"));
    }
    Ok(())
}

/// Without what templates usually have: only what is named here.
fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_filter("tojson", tojson);
    environment.add_filter("upper", |text: &str| text.to_uppercase());
    environment.add_filter("lower", |text: &str| text.to_lowercase());
    environment.add_filter("trim", |text: &str| text.trim().to_owned());
    environment.add_filter("round", round);
    environment.add_filter("default", default);
    environment.add_test("none", |value: &Value| value.is_none());
    environment
}

/// Safe inside a JSON body: a string comes with its quotes.
fn tojson(value: &Value) -> Result<Value, Error> {
    let mut output = Limited::default();
    serde_json::to_writer(&mut output, value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let text = String::from_utf8_lossy(&output.bytes).into_owned();
    Ok(Value::from_safe_string(text))
}

fn round(number: f64, digits: Rest<i32>) -> f64 {
    let scale = 10_f64.powi(digits.first().copied().unwrap_or(0).clamp(0, 9));
    (number * scale).round() / scale
}

/// Instead of what is not known.
fn default(value: &Value, instead: Value) -> Value {
    if value.is_none() || value.is_undefined() {
        instead
    } else {
        value.clone()
    }
}

fn failed(error: Error) -> TemplateError {
    let reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError::Failed {
        line: error.line().unwrap_or(0),
        reason,
    }
}

/// Takes [`MAX_OUTPUT`] bytes and no more.
#[derive(Default)]
struct Limited {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content_type;

    #[test]
    fn templates_fill_in_and_choose() {
        let check = |template: &str, expected: &str, kind: &str| {
            let body = render(template, &Body::sample(false)).expect(template);
            assert_eq!(std::str::from_utf8(&body), Ok(expected), "{template}");
            assert_eq!(content_type(&body), kind, "{template}");
            // What the dispatcher has is the JSON of the same body.
            let json: serde_json::Value =
                serde_json::from_slice(&Body::sample(false).json()).expect("JSON");
            assert_eq!(render(template, &json), Ok(body), "{template}");
        };
        let (json, text) = ("application/json", "text/plain; charset=utf-8");
        check("{{ label }}", "smoke", text);
        check("{{ label | tojson }}", "\"smoke\"", json);
        check(
            r#"{"text": {{ ("*" ~ label|upper ~ "*: " ~ caption) | tojson }}}"#,
            r#"{"text": "*SMOKE*: Smoke rises behind a \"parked\" van."}"#,
            json,
        );
        check("<{{ explanation[:14] }}>", "<\"Detect smoke\">", text);
        check(
            "{% if severity == 'critical' %}!{% elif caption is none %}?{% else %}{{ confidence | round(1) }}{% endif %}",
            "1.0",
            json,
        );
        check("{% raw %}{% for %}{% endraw %}", "{% for %}", text);
    }

    #[test]
    fn templates_that_fail_are_found_out() {
        let long = "x".repeat(MAX_TEMPLATE + 1);
        let joined = format!("{{{{ {} }}}}", ["label"; MAX_JOINS + 2].join("~"));
        let cases = [
            ("{{ label", "line 1: syntax error"),
            ("\n{{ lable }}", "line 2: undefined value"),
            ("{{ label | join }}", "line 1: unknown filter"),
            ("{{ caption | upper }}", "line 1: "),
            (
                "{%- for i in [1] %}{% endfor %}",
                "line 1: {% for %} is not for templates",
            ),
            ("{% set a = label %}", "line 1: {% set %} is not"),
            ("{% include 'a' %}", "line 1: {% include %} is not"),
            ("{{ label * 1000000 }}", "line 1: `*` is not"),
            ("{{ 9 ** 9 }}", "line 1: `**` is not"),
            ("{{ range(9) }}", "line 1: unknown function"),
            (&long, "it is longer than 10000 characters"),
            (&joined, "it has more than 100 of ~ and +"),
        ];
        for (template, expected) in cases {
            let error = check(template).expect_err(template).to_string();
            assert!(error.starts_with(expected), "{template}: {error}");
        }
        for good in [
            "{{ caption or 'no caption' }}",
            "{{ caption | default('') | upper }}",
            "{% if stream_url %}{{ stream_url }}{% endif %}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_body_that_gets_too_large_is_none() {
        let mut body = Body::sample(false);
        let label = "x".repeat(MAX_OUTPUT / 2);
        body.label = &label;
        assert!(render("{{ label }}{{ label }}", &body).is_ok());
        for template in ["{{ label }}.{{ label }}", "{{ (label ~ label) | tojson }}"] {
            let error = render(template, &body).expect_err(template).to_string();
            assert!(error.contains("large"), "{error}");
        }
    }
}
