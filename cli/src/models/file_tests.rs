//! Models files, good and bad.

use std::path::Path;

use anyhow::Result;
use sightline_inference::Device;
use sightline_inference::vlm::{Precision, View};
use sightline_testkit::dice::Dice;

use super::file::parse;
use super::listing;
use super::registry::{MANIFEST, Manifest};
use super::{Models, Source};
use crate::models::tests::usual;

fn parsed(text: &str) -> Result<Models, String> {
    parse(text, Path::new("/etc/sightline"), usual()).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_file_names_models_here_and_elsewhere() {
    let models = parsed(
        r#"
        [[describe]]
        path = "models/smolvlm2"
        precision = "q4f16"
        threads = 4
        device = "cuda:1"
        view = "images"

        [[describe]]
        name = "big"
        url = "http://gpu:8000/v1/"
        model = "Qwen/Qwen2.5-VL-7B-Instruct"
        key_file = "key"

        [embed]
        url = "https://tei/v1"
        model = "bge-small"
        dimension = 384
        "#,
    )
    .expect("a models file");
    let names: Vec<_> = models
        .describe
        .iter()
        .map(|m| (m.name.as_str(), m.reads_text))
        .collect();
    assert_eq!(names, [("smolvlm2", false), ("big", true)]);
    let Source::Local(local) = &models.describe[0].source else {
        panic!("a directory");
    };
    assert_eq!(local.path, Path::new("/etc/sightline/models/smolvlm2"));
    assert_eq!(
        (local.precision, local.device),
        (Precision::Q4F16, Device::Cuda(1))
    );
    assert_eq!((local.threads, local.view), (Some(4), View::Images));
    let Source::Remote(remote) = &models.describe[1].source else {
        panic!("a server");
    };
    assert_eq!(remote.url, "http://gpu:8000/v1");
    assert_eq!(
        remote.key_file.as_deref(),
        Some(Path::new("/etc/sightline/key"))
    );
    assert_eq!((remote.concurrency, remote.timeout.as_secs()), (8, 30));
    assert_eq!(models.embed.dimension, 384);
    assert_eq!(
        models.transcribe.name,
        usual().transcribe.name,
        "left out: as it was"
    );
}

#[test]
fn mistakes_are_named_with_what_is_allowed() {
    let check = |text: &str, said: &[&str]| {
        let error = parsed(text).expect_err(text);
        for words in said {
            assert!(error.contains(words), "{text}: {error}");
        }
    };
    check(
        "[[describe]]\npaths = \"x\"",
        &["unknown field `paths`", "`path`"],
    );
    check(
        "[describer]\n",
        &["unknown field `describer`", "`describe`"],
    );
    check(
        "[[describe]]\nname = \"a b\"\npath = \"x\"",
        &["\"a b\"", "letters, digits"],
    );
    check(
        "[[describe]]\nname = \"a\"",
        &["[[describe]] number 1 (\"a\")", "a path", "or a url"],
    );
    check(
        "[[describe]]\npath = \"x\"\nurl = \"http://h\"",
        &["not both"],
    );
    check(
        "[[describe]]\npath = \"x\"\nkey_file = \"k\"",
        &["key_file goes with url"],
    );
    check(
        "[[describe]]\nname=\"a\"\nurl = \"http://h\"\nmodel = \"m\"\ndevice = \"cpu\"",
        &["device goes with path"],
    );
    check(
        "[[describe]]\npath = \"x\"\nprecision = \"fp8\"",
        &["precision", "\"fp8\"", "fp32, fp16, int8, q4, q4f16"],
    );
    check(
        "[[describe]]\npath = \"x\"\ndevice = \"gpu\"",
        &["device", "auto, cpu and cuda:0"],
    );
    check(
        "[[describe]]\npath = \"x\"\nview = \"film\"",
        &["video, images and tiles"],
    );
    check("[[describe]]\npath = \"x\"\nthreads = 0", &["threads is 0"]);
    check(
        "[[describe]]\npath = \"x\"\n[[describe]]\npath = \"y/x\"",
        &["two [[describe]] are called \"x\""],
    );
    check(
        "[[describe]]\nname=\"a\"\nurl = \"gpu:8000\"\nmodel = \"m\"",
        &["http://HOST:PORT/v1"],
    );
    check(
        "[[describe]]\nname=\"a\"\nurl = \"http://h/v1\"",
        &["needs model"],
    );
    check(
        "[transcribe]\npath = \"x\"\nreads_text = true",
        &["[transcribe]", "reads_text is not for entries of this kind"],
    );
    check(
        "[embed]\nurl = \"http://h/v1\"\nmodel = \"m\"",
        &["dimension", "1 to 65536"],
    );
    check(
        "[embed]\npath = \"x\"\ndimension = 3",
        &["dimension goes with url"],
    );
    check(
        "[embed]\nurl = \"http://h/v1\"\nmodel = \"m\"\ndimension = 3\ntimeout_s = 0",
        &["timeout_s is 0: write 1 to 3600"],
    );
}

#[test]
fn whatever_a_file_holds_it_is_read_or_refused() {
    let whole = r#"
        [[describe]]
        name = "a"
        path = "models/smolvlm2"
        precision = "q4f16"
        threads = 4
        device = "cuda:1"
        max_batch = 8
        cache_tokens = 4096
        view = "images"
        reads_text = true
        [[describe]]
        name = "big"
        url = "http://gpu:8000/v1/"
        model = "m"
        key_file = "key"
        concurrency = 4
        timeout_s = 10
        [transcribe]
        path = "whisper.bin"
        multilingual = true
        [embed]
        url = "https://tei/v1"
        model = "bge-small"
        dimension = 384
        "#;
    assert!(parsed(whole).is_ok());
    let mut dice = Dice::new(11);
    let changed = |_| String::from_utf8_lossy(&dice.bytes(whole.as_bytes())).into_owned();
    let texts: Vec<String> = (0..5000).map(changed).collect();
    let (taken, refused): (Vec<_>, Vec<_>) = texts.iter().partition(|text| parsed(text).is_ok());
    assert!(taken.len() > 50 && refused.len() > 500, "both happen");
}

#[test]
fn what_fuzzing_found_is_taken_or_refused() {
    let corpus = sightline_testkit::repository().join("fuzz/corpus/model_manifests");
    let dir = tempfile::tempdir().expect("a directory");
    let mut taken = [0; 3];
    for input in std::fs::read_dir(corpus).expect("a corpus") {
        let input = std::fs::read(input.expect("a file").path()).expect("read");
        let Some((kind, content)) = input.split_first() else {
            continue;
        };
        // As `fuzz/src/manifests.rs` tells them apart.
        let kind = usize::from(kind % 3);
        taken[kind] += usize::from(match kind {
            0 => match parsed(&String::from_utf8_lossy(content)) {
                Ok(models) => !models.describe.is_empty(),
                Err(why) => {
                    assert!(!why.is_empty());
                    false
                }
            },
            1 => listing::parse(content).is_ok(),
            _ => {
                std::fs::write(dir.path().join(MANIFEST), content).expect("written");
                Manifest::read(dir.path()).is_some()
            }
        });
    }
    assert!(taken.iter().all(|&count| count > 0), "{taken:?}");
}
