//! `rest.md`: the paths of the OpenAPI document, with what they take and answer, and the objects that they share.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../services/gateway/src/rest/openapi.json");
const JSON: &str = "application/json";
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page.
///
/// # Errors
/// When the document is no OpenAPI document.
pub fn page() -> Result<String> {
    let mut document: Value = serde_json::from_str(DOCUMENT)?;
    // Whether the order of the file is kept depends on what else is built.
    document.sort_all_objects();
    let mut text = String::from(
        "<!-- Written by `make docs` from services/gateway/src/rest/openapi.json: change that. -->\n",
    );
    let info = &document["info"];
    let (title, what) = (words(&info["title"]), prose(&info["description"]));
    writeln!(text, "# {title}\n\n{what}\n")?;
    let paths = document["paths"].as_object();
    for (path, item) in paths.context("an OpenAPI document has paths")? {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                operate(&mut text, method, path, item, operation, &document)?;
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object();
    if let Some(schemas) = schemas.filter(|schemas| !schemas.is_empty()) {
        text.push_str("## Objects\n\n");
        for (name, schema) in schemas {
            writeln!(text, "### {name}\n")?;
            paragraph(&mut text, &schema["description"]);
            fields(&mut text, schema)?;
        }
    }
    Ok(text)
}

fn operate(
    text: &mut String,
    method: &str,
    path: &str,
    item: &Value,
    operation: &Value,
    document: &Value,
) -> Result<()> {
    writeln!(text, "## `{} {path}`\n", method.to_uppercase())?;
    paragraph(text, &operation["summary"]);
    paragraph(text, &operation["description"]);
    let own = operation["parameters"].as_array().into_iter().flatten();
    let shared = item["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<&Value> = shared
        .chain(own)
        .map(|parameter| resolved(parameter, document))
        .collect();
    if !parameters.is_empty() {
        text.push_str("| parameter | in | type | what |\n|---|---|---|---|\n");
    }
    for parameter in &parameters {
        let (name, place) = (words(&parameter["name"]), words(&parameter["in"]));
        let (kind, what) = (kind(&parameter["schema"]), cell(&parameter["description"]));
        writeln!(text, "| `{name}` | {place} | {kind} | {what} |")?;
    }
    if !parameters.is_empty() {
        text.push('\n');
    }
    let taken = resolved(&operation["requestBody"], document);
    let schema = &taken["content"][JSON]["schema"];
    if !schema.is_null() {
        writeln!(text, "Takes {}\n", kind(schema))?;
        fields(text, schema)?;
    }
    answers(text, operation, document)
}

/// Each status with when, and what a call that was done answers.
fn answers(text: &mut String, operation: &Value, document: &Value) -> Result<()> {
    text.push_str("| status | when |\n|---|---|\n");
    let mut done = None;
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        let answer = resolved(answer, document);
        writeln!(text, "| {status} | {} |", cell(&answer["description"]))?;
        let schema = &answer["content"][JSON]["schema"];
        if status.starts_with('2') && !schema.is_null() {
            done = Some(schema);
        }
    }
    text.push('\n');
    let Some(schema) = done else { return Ok(()) };
    // What every answer is wrapped in is told at the top of the page.
    let data = schema["properties"].get("data").unwrap_or(schema);
    writeln!(text, "Answers {}\n", kind(data))?;
    fields(text, data)
}

/// A table of an object's fields, those of objects in it too; nothing for what has none.
fn fields(text: &mut String, schema: &Value) -> Result<()> {
    let mut rows = String::new();
    rows_of(&mut rows, "", schema)?;
    if !rows.is_empty() {
        text.push_str("| field | type | what |\n|---|---|---|\n");
        text.push_str(&rows);
        text.push('\n');
    }
    Ok(())
}

fn rows_of(text: &mut String, outer: &str, schema: &Value) -> Result<()> {
    if !schema["items"].is_null() {
        return rows_of(
            text,
            &format!("{}[].", outer.trim_end_matches('.')),
            &schema["items"],
        );
    }
    let required = schema["required"].as_array();
    let needed = |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let optional = if needed(name) { "" } else { ", optional" };
        let (kind, what) = (kind(property), cell(&property["description"]));
        writeln!(text, "| `{outer}{name}` | {kind}{optional} | {what} |")?;
        rows_of(text, &format!("{outer}{name}."), property)?;
    }
    Ok(())
}

/// What a reference of the document points to, or the value itself.
fn resolved<'a>(value: &'a Value, document: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
    let target = target.and_then(|pointer| document.pointer(pointer));
    target.unwrap_or(value)
}

/// A schema in a word, with what it allows.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(kinds) = schema[several].as_array() {
            let joint = if several == "allOf" { " and " } else { " or " };
            return kinds.iter().map(kind).collect::<Vec<_>>().join(joint);
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return values.join(", ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().map(words).collect::<Vec<_>>().join(" or "),
        name => words(name),
    };
    let name = if name == "array" {
        format!("array of {}", kind(&schema["items"]))
    } else {
        name
    };
    format!("{name}{}", limits(schema))
}

fn limits(schema: &Value) -> String {
    let least = ["minimum", "exclusiveMinimum", "minLength", "minItems"];
    let most = ["maximum", "exclusiveMaximum", "maxLength", "maxItems"];
    let first = |names: [&str; 4]| names.iter().find_map(|&name| schema.get(name));
    let mut limits = match (first(least), first(most)) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", from {least}"),
        (None, Some(most)) => format!(", up to {most}"),
        (None, None) => String::new(),
    };
    if let Some(default) = schema.get("default") {
        limits.push_str(&format!(", {default} if unset"));
    }
    limits
}

fn paragraph(text: &mut String, value: &Value) {
    let said = prose(value);
    if !said.is_empty() {
        text.push_str(&said);
        text.push_str("\n\n");
    }
}

fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn prose(value: &Value) -> String {
    words(value).trim().replace('<', "&lt;")
}

/// The same as one line that may stand in a table.
fn cell(value: &Value) -> String {
    let said = prose(value).replace('|', "\\|");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}
