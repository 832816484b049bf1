//! The OpenAPI document of this skin: written by hand, served as it is, and held to the routes by a test.

use axum::response::IntoResponse;
use http::header;

/// Where it is served, without a key.
pub(super) const PATH: &str = "/openapi.json";

const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`
pub(super) async fn document() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A path without the names of what stands in it.
    fn shape(path: &str) -> String {
        let parts = path.split('/').map(|part| {
            let named = part.starts_with('{');
            if named { "{}" } else { part }
        });
        parts.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn the_document_has_every_path_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let written: BTreeSet<String> = paths.keys().map(|path| shape(path)).collect();
        let served: BTreeSet<String> = crate::rest::calls().map(|(path, _)| shape(path)).collect();
        assert_eq!(written, served);
    }
}
