//! Pulling from a server on this machine that speaks as the hub does: a list, redirects, ranges, connections that break.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::hub::Hub;
use super::pull::{Pull, digest};
use super::registry::{Manifest, Model};

const BIG: &str = "onnx/decoder_quantized.onnx";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does, and what it was asked.
#[derive(Default)]
struct Script {
    files: BTreeMap<String, Vec<u8>>,
    /// The digest it tells of the large file; the true one if unset.
    promised: Option<String>,
    /// It breaks off after so many bytes of an answer.
    breaks_after: Option<usize>,
    /// It answers so many more requests for the large file, then none.
    answers: Option<usize>,
    /// The ranges that were asked for of the large file.
    ranges: Vec<String>,
}

type Shared = Arc<Mutex<Script>>;

struct Server {
    endpoint: String,
    script: Shared,
    dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Result<Self> {
        let big = (0..30_000_u32).map(|i| (i % 251) as u8).collect();
        let small = |text: &str| text.as_bytes().to_vec();
        let files = [
            ("config.json", small("{}")),
            ("chat_template.jinja", small("hello")),
            ("README.md", small("nobody asked for this")),
            (BIG, big),
            ("onnx/decoder_quantized.onnx_data", small("further weights")),
            ("onnx/decoder.onnx", small("another precision")),
        ];
        let files = files.map(|(path, bytes)| (path.to_owned(), bytes)).into();
        let script: Shared = Arc::new(Mutex::new(Script {
            files,
            ..Script::default()
        }));
        let router = Router::new()
            .route("/api/models/org/model/tree/main", get(list))
            .route("/org/model/resolve/main/{*path}", get(resolve))
            .route("/elsewhere/{*path}", get(file))
            .with_state(Arc::clone(&script));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            endpoint,
            script,
            dir: tempfile::tempdir()?,
        })
    }

    async fn pull(&self) -> Result<PathBuf> {
        pull(&self.endpoint, self.dir.path()).await
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().expect("no panic"));
    }

    fn ranges(&self) -> Vec<String> {
        self.script.lock().expect("no panic").ranges.clone()
    }
}

async fn pull(endpoint: &str, into: &Path) -> Result<PathBuf> {
    let model: Model = toml::from_str(
        r#"
        name = "tiny"
        kind = "describe"
        about = ""
        licence = ""
        repository = "org/model"
        revision = "main"
        files = ["config.json"]
        optional = ["chat_template.json", "chat_template.jinja"]
        graphs = ["decoder"]
        precision = "int8"
        "#,
    )?;
    let pull = Pull {
        hub: &Hub::new(endpoint, Some("hf_secret"))?,
        model: &model,
        precision: None,
        into,
        pause: Duration::from_millis(1),
        bar: ProgressBar::hidden(),
    };
    pull.run().await
}

async fn list(State(script): State<Shared>) -> String {
    let script = script.lock().expect("no panic");
    let item = |(path, bytes): (&String, &Vec<u8>)| -> Value {
        let mut item =
            json!({"type": "file", "oid": "a git id", "path": path, "size": bytes.len()});
        if path == BIG {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), bytes).expect("written");
            let true_one = digest(file.path(), path).expect("readable").sha256;
            let oid = script.promised.clone().unwrap_or(true_one);
            item["size"] = json!(134);
            item["lfs"] = json!({"oid": oid, "size": bytes.len(), "pointerSize": 134});
        }
        item
    };
    let mut items: Vec<Value> = script.files.iter().map(item).collect();
    items.push(json!({"type": "directory", "oid": "a git id", "path": "onnx", "size": 0}));
    Value::Array(items).to_string()
}

/// Files lie elsewhere, and what is said of them stands in the answer that sends there.
async fn resolve(UrlPath(path): UrlPath<String>, headers: HeaderMap) -> Response<Body> {
    assert_eq!(headers[header::AUTHORIZATION], "Bearer hf_secret");
    Response::builder()
        .status(StatusCode::FOUND)
        .header(header::LOCATION, format!("/elsewhere/{path}"))
        .header("x-repo-commit", COMMIT)
        .body(Body::empty())
        .expect("an answer")
}

async fn file(
    State(script): State<Shared>,
    UrlPath(path): UrlPath<String>,
    headers: HeaderMap,
) -> Response<Body> {
    let mut script = script.lock().expect("no panic");
    let bytes = script.files[&path].clone();
    let range = headers
        .get(header::RANGE)
        .map(|r| r.to_str().expect("text").to_owned());
    if path == BIG {
        script.ranges.push(range.clone().unwrap_or_default());
        if let Some(answers) = &mut script.answers {
            if *answers == 0 {
                return Response::builder()
                    .status(503)
                    .body(Body::empty())
                    .expect("an answer");
            }
            *answers -= 1;
        }
    }
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let answer = match from {
        Some(from) => Response::builder().status(206).header(
            header::CONTENT_RANGE,
            format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
        None => Response::builder(),
    };
    let rest = bytes[from.unwrap_or(0)..].to_vec();
    let answer = answer.header(header::CONTENT_LENGTH, rest.len());
    let body = match script.breaks_after {
        Some(after) if after < rest.len() => {
            let first = stream::iter([Ok(rest[..after].to_vec())]);
            let broken = async {
                // What came before is on its way by then.
                tokio::task::yield_now().await;
                Err(std::io::Error::other("gone"))
            };
            Body::from_stream(first.chain(stream::once(broken)))
        }
        _ => Body::from(rest),
    };
    answer.body(body).expect("an answer")
}

#[tokio::test]
async fn a_model_is_pulled_with_all_that_belongs_to_it() -> Result<()> {
    let server = Server::start().await?;
    let place = server.pull().await?;
    let manifest = Manifest::read(&place).expect("written");
    let mut paths: Vec<_> = manifest.files.iter().map(|f| f.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "chat_template.jinja",
            "config.json",
            BIG,
            "onnx/decoder_quantized.onnx_data"
        ]
    );
    for file in &manifest.files {
        assert_eq!(&digest(&place.join(&file.path), &file.path)?, file);
    }
    let left: Vec<_> = std::fs::read_dir(&place)?
        .flatten()
        .map(|f| f.file_name())
        .collect();
    assert_eq!(left.len(), 4, "no parts, nothing else: {left:?}");
    // Once more: what is there is taken over by a fresh copy.
    assert_eq!(server.pull().await?, place);
    Ok(())
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_ended() -> Result<()> {
    let server = Server::start().await?;
    server.set(|script| {
        script.breaks_after = Some(10_000);
        script.answers = Some(1);
    });
    let error = format!(
        "{:#}",
        server.pull().await.expect_err("503 after 10,000 bytes")
    );
    assert!(
        error.contains("the same command goes on with it"),
        "{error}"
    );
    assert!(
        !server.dir.path().join("tiny").exists(),
        "nothing half is in place"
    );
    server.set(|script| {
        script.answers = None;
        script.ranges.clear();
    });
    let place = server.pull().await?;
    assert_eq!(server.ranges(), ["bytes=10000-", "bytes=20000-"]);
    assert_eq!(std::fs::metadata(place.join(BIG))?.len(), 30_000);
    Ok(())
}

#[tokio::test]
async fn a_file_with_another_digest_is_refused_and_removed() -> Result<()> {
    let server = Server::start().await?;
    server.set(|script| script.promised = Some("00".repeat(32)));
    let error = format!("{:#}", server.pull().await.expect_err("another digest"));
    assert!(
        error.contains(BIG) && error.contains(&"00".repeat(32)),
        "{error}"
    );
    assert!(!server.dir.path().join("tiny").exists());
    server.set(|script| script.promised = None);
    server.pull().await?;
    assert_eq!(server.ranges(), ["", ""], "all of it came anew");
    Ok(())
}

#[tokio::test]
async fn what_a_hub_lists_does_not_lead_out_of_the_directory() -> Result<()> {
    let with = async |path: &str| {
        let server = Server::start().await?;
        let evil = (path.to_owned(), b"evil".to_vec());
        server.set(|script| script.files.extend([evil]));
        let pulled = server.pull().await;
        anyhow::Ok((server, pulled))
    };
    for path in [
        "config.json_data/../../x",
        "config.json_data/../x",
        "../x",
        "/tmp/x",
        "./config.json",
    ] {
        let (server, pulled) = with(path).await?;
        let error = format!("{:#}", pulled.expect_err("it leads out"));
        assert!(
            error.contains(&format!("{path:?}")) && error.contains("no file below"),
            "{error}"
        );
        assert!(!server.dir.path().join("tiny").exists(), "{path}");
    }
    // Nothing but what lies beside a file belongs to it.
    for (path, pulls) in [
        ("config.json_data_1.bin-2", true),
        ("config.json_data/x", false),
        ("config.json_data x", false),
    ] {
        let (_server, pulled) = with(path).await?;
        assert_eq!(pulled?.join(path).exists(), pulls, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_network_it_says_which_file_goes_where() -> Result<()> {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let dir = tempfile::tempdir()?;
    let endpoint = format!("http://{nobody}");
    let error = pull(&endpoint, dir.path())
        .await
        .expect_err("nobody listens")
        .to_string();
    let said = [
        format!("cannot reach {endpoint}"),
        format!(
            "{endpoint}/org/model/resolve/main/{BIG}\n    -> {}/tiny/{BIG}",
            dir.path().display()
        ),
        format!("{endpoint}/org/model/resolve/main/config.json\n    -> "),
        "chat_template.json, chat_template.jinja".to_owned(),
    ];
    for words in said {
        assert!(error.contains(&words), "{error}");
    }
    Ok(())
}
