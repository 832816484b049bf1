//! No input makes the REST skin fail: schemathesis fuzzes it by its own OpenAPI document.

use anyhow::{Result, ensure};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::KEY;
use sightline_testkit::python;

use super::platform;
use crate::ground;

#[tokio::test]
async fn no_input_is_a_fault_of_the_server() -> Result<()> {
    let ground = ground().await?;
    let (mut up, base_url) = platform(&ground).await?;
    python::run("videodb/fuzz.py", &[&base_url, KEY]).await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    // Cameras that are not there are connected and started.
    no_surprises(&up, &["the source is opened again"])
}
