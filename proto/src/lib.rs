//! The words that roles and clients share: generated messages, identifiers, times and error reasons.

pub mod client;
pub mod ids;
pub mod reasons;
pub mod time;

/// The public API, package `sightline.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("sightline.v1");
}

/// What travels between roles and is kept in the catalog, package `sightline.internal.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod internal {
    include!(concat!(
        env!("OUT_DIR"),
        "/internal/sightline.internal.v1.rs"
    ));
}

/// Descriptors of the public package, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("sightline.v1");
