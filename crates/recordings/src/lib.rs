//! Recordings: segments in an object store, found by their names, played by signed links.
//!
//! A segment is an object `recordings/<rtstream>/<hour>/<start_us>-<duration_us>.ts`: its name says all that has to be known about
//! it. An hour in which nothing is written any more gets an `index` object, so that a week is read in 168 small reads and no
//! directory is walked for it.

mod body;
mod cache;
mod error;
#[cfg(test)]
mod faulty;
mod hours;
mod library;
pub mod links;
mod names;
mod open;
pub mod playlist;
mod removal;
mod retention;
mod staged;
mod store;
#[cfg(test)]
mod tests;
mod upload;

pub use body::ObjectBody;
pub use error::StoreError;
pub use library::Library;
pub use names::{LONGEST_US, Segment, slug_part};
pub use removal::Page;
pub use retention::{Kept, Retention, enforce};
pub use store::Store;
