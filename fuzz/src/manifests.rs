//! What says which models there are: the models file, the hub's list of a repository, and what lies beside a model that was pulled.

use std::path::Path;

use self::kinds::{
    Describe, Embed, Local, Models, Remote, Source, Transcribe, check_name, last_part,
};
use self::registry::{MANIFEST, Manifest};

#[path = "../../cli/src/models/file.rs"]
mod file;
#[path = "../../cli/src/models/kinds.rs"]
mod kinds;
#[path = "../../cli/src/models/listing.rs"]
mod listing;
#[path = "../../cli/src/models/registry.rs"]
mod registry;

fn usual() -> Models {
    let local = |path: &str| Source::Local(Local::at(path.into()));
    Models {
        describe: vec![Describe {
            name: "demo-vlm".to_owned(),
            reads_text: false,
            source: local("demo-vlm"),
        }],
        transcribe: Transcribe {
            name: "demo".to_owned(),
            source: local("demo.bin"),
            multilingual: None,
        },
        embed: Embed {
            name: "minilm".to_owned(),
            source: local("minilm"),
            dimension: 0,
        },
        runtime: None,
    }
}

/// The first byte chooses. A models file that is taken names models that can be told apart, and servers that can be asked.
pub fn model_manifests(data: &[u8]) {
    let Some((kind, content)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => models_file(&String::from_utf8_lossy(content)),
        1 => {
            for (path, listed) in listing::parse(content).unwrap_or_default() {
                std::hint::black_box((path, listed.size, listed.sha256));
            }
        }
        _ => manifest(content),
    }
}

fn models_file(text: &str) {
    let dir = Path::new("/etc/sightline");
    let models = match file::parse(text, dir, usual()) {
        Ok(models) => models,
        Err(error) => return assert!(!format!("{error:#}").is_empty()),
    };
    let mut names: Vec<_> = models.describe.iter().map(|model| &model.name).collect();
    assert!(names.iter().all(|name| check_name(name).is_ok()));
    let count = names.len();
    names.sort();
    names.dedup();
    assert!(count > 0 && names.len() == count);
    let describe = models.describe.iter().map(|model| &model.source);
    for source in describe.chain([&models.transcribe.source, &models.embed.source]) {
        match source {
            Source::Local(local) => assert!(local.threads != Some(0) && local.max_batch != Some(0)),
            Source::Remote(remote) => {
                let url = url::Url::parse(&remote.url).expect("a URL");
                assert!(url.has_host() && remote.concurrency > 0 && !remote.timeout.is_zero());
            }
        }
    }
}

/// What was pulled, as it is written and read again.
fn manifest(content: &[u8]) {
    let at = std::env::temp_dir().join(format!("sightline-fuzz-{}-pulled", std::process::id()));
    std::fs::create_dir_all(&at).expect("made");
    std::fs::write(at.join(MANIFEST), content).expect("written");
    if let Some(read) = Manifest::read(&at) {
        let written = serde_json::to_vec(&read).expect("JSON");
        std::fs::write(at.join(MANIFEST), written).expect("written");
        assert_eq!(Manifest::read(&at), Some(read));
    }
}
