//! Writes docs/api from the protos.
fn main() {}
