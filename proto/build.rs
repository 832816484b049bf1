//! Compiles the protos below `sightline/` with the system's `protoc`.

use std::path::PathBuf;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by the environment alone where to write"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let public = [
        "rtstream",
        "index",
        "event",
        "endpoint",
        "watch",
        "collection",
        "recording",
        "key",
        "system",
    ]
    .map(|name| format!("sightline/v1/{name}.proto"));
    let internal = ["bus", "catalog", "records", "ingest", "recordings"]
        .map(|name| format!("sightline/internal/v1/{name}.proto"));

    // Not when something else below this folder changes: everything depends on this crate.
    println!("cargo:rerun-if-changed=sightline");
    // The descriptor set holds the public package alone: it is what reflection shows.
    // It also holds the comments, which docs/api is written from. Type names let clients show messages as JSON.
    let mut named = prost_build::Config::new();
    named.enable_type_names();
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .file_descriptor_set_path(out.join("sightline.v1.bin"))
        .bytes(".")
        .compile_with_config(named, &public, &[".".into()])?;
    // A folder of its own, because an extern package is written out empty.
    let internal_out = out.join("internal");
    std::fs::create_dir_all(&internal_out)?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .out_dir(internal_out)
        .extern_path(".sightline.v1", "crate::v1")
        .bytes(".")
        .compile_protos(&internal, &[".".into()])?;
    Ok(())
}
