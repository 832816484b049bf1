//! Comments of a proto file, by what they stand above.

use std::collections::HashMap;

use anyhow::{Context, Result};
use prost_types::FileDescriptorProto;

/// Numbers of fields in descriptor.proto, of which paths to a definition are made.
pub const MESSAGE: i32 = 4;
/// An enum of a file.
pub const ENUM: i32 = 5;
/// A service of a file.
pub const SERVICE: i32 = 6;
/// A field of a message, a value of an enum or a method of a service.
pub const MEMBER: i32 = 2;
/// A message in a message.
pub const NESTED_MESSAGE: i32 = 3;
/// An enum in a message.
pub const NESTED_ENUM: i32 = 4;

/// The comments of one file.
pub struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    /// Those above the definitions of a file.
    pub fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let commented = locations.filter_map(|location| {
            let comment = location.leading_comments.as_deref()?;
            Some((location.path.clone(), one_line(comment)))
        });
        Self(commented.collect())
    }

    /// What stands above a definition.
    ///
    /// # Errors
    /// When nothing does: the lints want a comment everywhere.
    pub fn at(&self, path: &[i32]) -> Result<&str> {
        let comment = self.0.get(path).map(String::as_str);
        comment.with_context(|| format!("there is no comment at {path:?}"))
    }
}

/// A definition within another.
pub fn within(path: &[i32], kind: i32, place: usize) -> Vec<i32> {
    let mut inner = path.to_vec();
    inner.extend([kind, place as i32]);
    inner
}

/// A comment as one line that may stand in a table.
fn one_line(comment: &str) -> String {
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "&lt;")
}
