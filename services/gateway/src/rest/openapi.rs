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
