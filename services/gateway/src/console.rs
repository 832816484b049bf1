//! The console: a page that calls the public API from the browser, embedded in the program by `build.rs`.
//!
//! Without Node there is no page to embed: then a plain one says how to build it.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Nothing from elsewhere, and nothing written into the page, runs or is loaded; no text becomes script on the way through
/// the page's own code. hls.js feeds videos through blobs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      media-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The files of the built page: `index.html`, and what it loads by names that change with the content; `.gz` is the same compressed.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/console_files.rs"));

const PAGE: &str = "index.html";

/// For those who build without Node.
const PLAIN: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<title>Sightline</title>\n<link rel=\"stylesheet\" href=\"assets/player.css\">\n",
    "<link rel=\"icon\" href=\"assets/icon.svg\">\n</head>\n<body>\n<main class=\"page\">\n",
    "<h1>Sightline is running, without its console</h1>\n",
    "<p>This program was built without the console, which takes Node. To have it, run <code>make console</code> and then ",
    "<code>make build</code> in the source folder, and start the program again.</p>\n",
    "<p>Everything else is here: this port speaks gRPC, gRPC-web and REST, and plays recordings to whoever has a link.</p>\n",
    "</main>\n</body>\n</html>\n"
);

/// The page and what it loads. No key is asked for: the page has none, its user brings it.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/", get(page))
        .route("/console/{file}", get(file))
}

fn find(name: &str) -> Option<&'static [u8]> {
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, content)| *content)
}

/// For browsers the console, for everyone else some words.
async fn page(headers: HeaderMap) -> Response {
    let mut response = if lists(&headers, &header::ACCEPT, "text/html") {
        let content = find(PAGE).unwrap_or(PLAIN.as_bytes());
        answer(content, "text/html; charset=utf-8", "no-cache")
    } else {
        about().into_response()
    };
    vary(&mut response, "accept");
    response
}

/// A file whose name is its version.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let kind = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        _ => return missing(),
    };
    let Some(content) = find(&name) else {
        return missing();
    };
    let caching = "public, max-age=31536000, immutable";
    let packed = find(&format!("{name}.gz"));
    let packed = packed.filter(|_| lists(&headers, &header::ACCEPT_ENCODING, "gzip"));
    let mut response = answer(packed.unwrap_or(content), kind, caching);
    if packed.is_some() {
        let gzip = HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, gzip);
    }
    vary(&mut response, "accept-encoding");
    response
}

fn answer(content: &'static [u8], kind: &'static str, caching: &'static str) -> Response {
    let mut response = content.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn vary(response: &mut Response, by: &'static str) {
    let by = HeaderValue::from_static(by);
    response.headers_mut().insert(header::VARY, by);
}

/// Whether a header with a list names this, and does not refuse it.
fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("").split(',').any(|part| {
        let (item, weight) = part.split_once(';').unwrap_or((part, ""));
        item.trim().eq_ignore_ascii_case(wanted) && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

fn missing() -> Response {
    let text = "there is nothing here; load the console again\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn about() -> String {
    format!(
        "Sightline {version}\n\n\
         Live video in; captions, transcripts, scored search and alerts out.\n\n\
         Open this address in a browser for the console.\n\
         This port speaks gRPC and gRPC-web, package sightline.v1 (reflection is on):\n\
         grpcurl -plaintext -H 'x-access-token: KEY' HOST:PORT list\n\n\
         /watch, /embed, /manifests and /exports play recordings to whoever has a link.\n\
         /healthz says whether this gateway can work.\n",
        version = env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(path: &str, name: HeaderName, value: &'static str) -> Response {
        use tower::ServiceExt as _;
        let request = http::Request::get(path).header(name, value);
        let request = request.body(axum::body::Body::empty()).expect("a request");
        routes().oneshot(request).await.expect("an answer")
    }

    #[tokio::test]
    async fn browsers_get_a_page_that_runs_nothing_of_others() {
        let response = asked("/", header::ACCEPT, "text/html,*/*;q=0.8").await;
        let policy = &response.headers()[header::CONTENT_SECURITY_POLICY];
        let policy = policy.to_str().expect("text");
        assert!(policy.contains("script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/html; charset=utf-8");
        let response = asked("/", header::ACCEPT, "*/*").await;
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/plain; charset=utf-8");
    }

    #[tokio::test]
    async fn what_is_not_part_of_the_page_is_not_there() {
        for path in ["/console/none.js", "/console/index.html", "/console/x.gz"] {
            let response = asked(path, header::ACCEPT, "*/*").await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn nothing_that_is_refused_is_sent() {
        for (value, expected) in [
            ("gzip, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            let listed = lists(&headers, &header::ACCEPT_ENCODING, "gzip");
            assert_eq!(listed, expected, "{value}");
        }
    }
}
