//! Answers on standard output: aligned tables for people, or one JSON object a line for programs.

use std::io::{self, Write};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};
use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_service::clock::{Clock, SystemClock};

use super::args::Limit;
use super::moment::View;

/// Between two columns.
const GAP: &str = "  ";
/// How many of a page are asked for at most.
const PAGE: u32 = 1000;

/// A message that people can be shown as a row, or alone.
pub trait Shown: Message + Name {
    /// What the columns are called.
    const COLUMNS: &'static [&'static str];

    /// One cell a column.
    fn row(&self, view: &View) -> Vec<String>;

    /// What is shown of it beside the columns where it stands alone; what is empty is left out.
    fn further(&self, _view: &View) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// How answers are shown.
pub struct Output {
    /// For programs.
    pub json: bool,
    /// What times look like.
    pub view: View,
}

/// One page of a list, and the token of the next.
pub type Page<T> = (Vec<T>, String);

impl Output {
    /// Output as of now, where this machine is.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            view: View {
                now_us: SystemClock.now_us(),
                zone: TimeZone::system(),
            },
        }
    }

    /// Asks for pages until there is enough, and shows them.
    ///
    /// # Errors
    /// When asking fails, or nobody reads.
    pub async fn pages<T: Shown>(
        &self,
        limit: Limit,
        mut ask: impl AsyncFnMut(i32, String) -> Result<Page<T>>,
    ) -> Result<()> {
        let limit = limit.limit as usize;
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let left = (limit - items.len()).min(PAGE as usize);
            let (page, next) = ask(left as i32, token).await?;
            items.extend(page);
            token = next;
            if token.is_empty() || items.len() >= limit {
                break;
            }
        }
        self.list(&items)?;
        if !token.is_empty() {
            eprintln!("There are more: --limit {}", limit.saturating_mul(10));
        }
        Ok(())
    }

    /// Shows a list.
    ///
    /// # Errors
    /// When nobody reads.
    pub fn list<T: Shown>(&self, items: &[T]) -> Result<()> {
        if self.json {
            return items.iter().try_for_each(|item| self.line(&line(item)?));
        }
        if items.is_empty() {
            eprintln!("There are none.");
            return Ok(());
        }
        let head = T::COLUMNS.iter().map(|&column| column.to_owned()).collect();
        let rows = items.iter().map(|item| item.row(&self.view));
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        aligned(&rows).iter().try_for_each(|row| self.line(row))
    }

    /// Shows one thing.
    ///
    /// # Errors
    /// When nobody reads.
    pub fn one<T: Shown>(&self, item: &T) -> Result<()> {
        if self.json {
            return self.line(&line(item)?);
        }
        let columns = T::COLUMNS.iter().map(|column| column.to_lowercase());
        let further = item.further(&self.view).into_iter();
        let further = further.map(|(name, value)| vec![name.to_owned(), value]);
        let rows = columns.zip(item.row(&self.view));
        let rows: Vec<Vec<String>> = rows
            .map(|(name, value)| vec![name, value])
            .chain(further)
            .filter(|row| !row[1].is_empty())
            .collect();
        aligned(&rows).iter().try_for_each(|row| self.line(row))
    }

    /// Says that something is done to what has this id: `verb` is `deleted` or `revoked`.
    ///
    /// # Errors
    /// When nobody reads.
    pub fn done(&self, verb: &str, id: &str) -> Result<()> {
        let said: Value = json!({ verb: id });
        let words = format!("{id} is {verb}.");
        self.line(&if self.json { said.to_string() } else { words })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// When nobody reads.
    pub fn line(&self, line: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())?;
        Ok(())
    }
}

/// A message as one line of JSON, with the fields' names as the protos have them and every field that can't be unset.
///
/// # Errors
/// When it is not a message of the public API.
pub fn line<T: Message + Name>(message: &T) -> Result<String> {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build wrote this descriptor set")
    });
    let kind = POOL.get_message_by_name(&T::full_name());
    let kind = kind.with_context(|| format!("{} is not public", T::full_name()))?;
    let dynamic = DynamicMessage::decode(kind, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let mut json = serde_json::Serializer::new(Vec::new());
    dynamic.serialize_with_options(&mut json, &options)?;
    Ok(String::from_utf8(json.into_inner())?)
}

/// Rows whose columns stand below each other. Cells become one line; the last column is not padded.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let cell = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row: &Vec<String>| row.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let padded = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        cells.join(GAP).trim_end().to_owned()
    };
    rows.iter().map(padded).collect()
}

#[cfg(test)]
mod tests {
    use sightline_proto::v1;

    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["ID", "TEXT"], ["é1", "two\nlines"], ["longer", ""]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let expected = ["ID      TEXT", "é1      two lines", "longer"];
        assert_eq!(aligned(&rows), expected);
    }

    #[test]
    fn programs_read_the_fields_of_the_protos() {
        let collection = v1::Collection {
            id: "c-1".to_owned(),
            name: "Gates".to_owned(),
            description: String::new(),
            create_time: Some(sightline_proto::time::timestamp(1_500_000)),
        };
        let expected = r#"{"id":"c-1","name":"Gates","description":"","create_time":"1970-01-01T00:00:01.500Z"}"#;
        assert_eq!(line(&collection).expect("public"), expected);
        let watch = v1::WatchResponse {
            cursor: "7".to_owned(),
            message: Some(v1::watch_response::Message::Ready(v1::Ready {})),
        };
        let expected = r#"{"cursor":"7","ready":{}}"#;
        assert_eq!(line(&watch).expect("public"), expected);
    }
}
