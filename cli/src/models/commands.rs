//! `sightline models`: which models are known by name, pulling them, and whether their files are what they should be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::hub::Hub;
use super::pull::{PAUSE, Pull, digest, progress};
use super::registry::{self, Digest, Manifest, Model};
use crate::args::DataArgs;
use crate::files;

/// Options of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: Command,
    /// Where models are pulled to; the data directory's models/ if unset.
    #[arg(long, global = true, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the models that are known by name.
    List,
    /// Download a model, and check it.
    Pull(PullArgs),
    /// Check the files of a model, or of all that are here.
    Verify {
        /// The model; all that are here if unset.
        name: Option<String>,
    },
    /// Print where a model is, as the models file takes it.
    Path {
        /// The model.
        name: String,
    },
}

#[derive(Debug, Args)]
struct PullArgs {
    /// The model.
    name: String,
    /// Which weights, where there are several: fp32, fp16, int8, q4 or q4f16.
    #[arg(long)]
    precision: Option<String>,
    /// The hub, or a mirror of it.
    #[arg(
        long,
        value_name = "URL",
        env = "HF_ENDPOINT",
        default_value = "https://huggingface.co"
    )]
    endpoint: String,
    /// The file with the hub's token, for models whose licence has to be accepted.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When it can't be done; the error says what to do.
pub async fn run(args: ModelsArgs) -> Result<ExitCode> {
    let pulled = match &args.models_dir {
        Some(dir) => dir.clone(),
        None => files::data_dir(&args.data)?.join("models"),
    };
    let place = Place { pulled };
    match args.command {
        Command::List => list(&place, args.json),
        Command::Path { name } => path(&place, &name, args.json),
        Command::Verify { name } => return verify(&place, name.as_deref(), args.json),
        Command::Pull(pull) => download(&place, &pull, args.json).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Where models are on this machine.
struct Place {
    pulled: PathBuf,
}

impl Place {
    /// A model's directory, if it is here.
    fn of(&self, model: &Model) -> Option<PathBuf> {
        let pulled = self.pulled.join(&model.name);
        let shipped = files::shipped("models").join(&model.name);
        if pulled.is_dir() {
            Some(pulled)
        } else {
            Some(shipped).filter(|dir| model.is_shipped() && dir.is_dir())
        }
    }
}

fn list(place: &Place, as_json: bool) -> Result<()> {
    let models = registry::all();
    if as_json {
        return print(&Value::Array(
            models.iter().map(|m| described(place, m)).collect(),
        ));
    }
    println!(
        "{:<22} {:<11} {:<11} {:<8} ABOUT",
        "NAME", "KIND", "LICENCE", "HERE"
    );
    for model in models {
        let kind = serde_json::to_value(model.kind)?;
        let here = if place.of(&model).is_some() {
            "yes"
        } else {
            "no"
        };
        let kind = kind.as_str().unwrap_or_default();
        println!(
            "{:<22} {kind:<11} {:<11} {here:<8} {}",
            model.name, model.licence, model.about
        );
    }
    Ok(())
}

fn described(place: &Place, model: &Model) -> Value {
    let here = place.of(model);
    let known = here.as_deref().and_then(|dir| expected(model, dir).ok());
    json!({
        "name": model.name,
        "kind": model.kind,
        "about": model.about,
        "licence": model.licence,
        "repository": model.repository,
        "revision": model.revision,
        "path": here.map(|dir| model.entry(&dir)),
        "bytes": known.map(|files| files.iter().map(|file| file.size).sum::<u64>()),
    })
}

fn path(place: &Place, name: &str, as_json: bool) -> Result<()> {
    let model = registry::find(name)?;
    let dir = place.of(&model);
    let dir = dir.with_context(|| format!("{name} is not here: sightline models pull {name}"))?;
    let entry = model.entry(&dir);
    if as_json {
        return print(&json!({"name": name, "path": entry}));
    }
    println!("{}", entry.display());
    Ok(())
}

async fn download(place: &Place, args: &PullArgs, as_json: bool) -> Result<()> {
    let model = registry::find(&args.name)?;
    if model.is_shipped() {
        bail!(
            "{} comes with sightline: sightline models path {}",
            model.name,
            model.name
        );
    }
    let token = args.token_file.as_deref().map(|file| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    });
    let token = token.transpose()?;
    let hub = Hub::new(&args.endpoint, token.as_deref().map(str::trim))?;
    let pull = Pull {
        hub: &hub,
        model: &model,
        precision: args.precision.as_deref(),
        into: &place.pulled,
        pause: PAUSE,
        bar: progress(),
    };
    let entry = model.entry(&pull.run().await?);
    if as_json {
        return print(&json!({"name": model.name, "path": entry}));
    }
    println!("{} is in {}", model.name, entry.display());
    Ok(())
}

/// Checks; the exit code says whether all is well.
fn verify(place: &Place, name: Option<&str>, as_json: bool) -> Result<ExitCode> {
    let here = |model: Model| Some((place.of(&model)?, model));
    let models: Vec<(PathBuf, Model)> = match name {
        None => registry::all().into_iter().filter_map(here).collect(),
        Some(name) => {
            let found = here(registry::find(name)?);
            vec![
                found
                    .with_context(|| format!("{name} is not here: sightline models pull {name}"))?,
            ]
        }
    };
    let mut sound = true;
    for (dir, model) in models {
        let problems = problems(&model, &dir)?;
        sound &= problems.is_empty();
        if as_json {
            print(
                &json!({"name": model.name, "sound": problems.is_empty(), "problems": problems}),
            )?;
        } else if problems.is_empty() {
            println!("{}: as it should be", model.name);
        } else {
            println!("{}: {}", model.name, problems.join("; "));
        }
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is wrong with a model's files.
fn problems(model: &Model, dir: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in expected(model, dir)? {
        let path = dir.join(&file.path);
        if !path.is_file() {
            problems.push(format!("{} is missing", path.display()));
        } else if digest(&path, &file.path)? != file {
            problems.push(format!("{} is damaged or changed", path.display()));
        }
    }
    Ok(problems)
}

/// What its files have to be: of shipped ones by the registry, of pulled ones as they were when they were pulled.
fn expected(model: &Model, dir: &Path) -> Result<Vec<Digest>> {
    if model.is_shipped() {
        return Ok(model.shipped.clone());
    }
    let manifest = Manifest::read(dir).with_context(|| {
        format!(
            "nothing tells what the files in {} have to be, because they were not pulled: sightline models pull {}",
            dir.display(),
            model.name
        )
    })?;
    Ok(manifest.files)
}

fn print(value: &Value) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_sightline_is_what_the_registry_says() {
        let shipped: Vec<_> = registry::all()
            .into_iter()
            .filter(Model::is_shipped)
            .collect();
        assert_eq!(shipped.len(), 3);
        for model in shipped {
            let dir = files::shipped("models").join(&model.name);
            assert_eq!(problems(&model, &dir).expect("readable"), [""; 0]);
        }
    }

    #[test]
    fn damage_and_loss_are_told_by_file() {
        let model = registry::find("demo-whisper").expect("known");
        let there = tempfile::tempdir().expect("a directory");
        let told = || problems(&model, there.path()).expect("readable").join("; ");
        assert!(
            told().ends_with("ggml-demo.en-q5_1.bin is missing"),
            "{}",
            told()
        );
        std::fs::write(there.path().join("ggml-demo.en-q5_1.bin"), "x").expect("written");
        assert!(told().ends_with("is damaged or changed"), "{}", told());
        let unknown = registry::find("whisper-base").expect("known");
        let error = problems(&unknown, there.path())
            .expect_err("no list")
            .to_string();
        assert!(
            error.contains("sightline models pull whisper-base"),
            "{error}"
        );
    }
}
