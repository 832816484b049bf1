//! Receivers of alerts beside webhooks, as the command line names them.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sightline_alerts::Sink;

/// Receivers of alerts beside webhooks.
#[derive(Debug, Args)]
pub struct SinkArgs {
    /// A receiver that alerts may name beside their webhook: a NATS subject (NAME=nats://[USER@]HOST/SUBJECT, tls:// encrypts),
    /// mailboxes (NAME=smtp://[USER@]HOST/?from=ADDRESS&to=ADDRESS, smtps:// encrypts from the start) or an MQTT topic
    /// (NAME=mqtt://[USER@]HOST/TOPIC, mqtts:// encrypts); may be repeated. The gateway is told the names.
    #[arg(id = "sink", long = "sink", value_name = "NAME=URL", value_parser = named)]
    pub sinks: Vec<Named>,
    /// The file with a sink's password, or with its token where its URL has no user; may be repeated.
    #[arg(id = "sink_secret", long = "sink-secret", value_name = "NAME=FILE", value_parser = named)]
    pub secrets: Vec<Named>,
}

/// The same for the gateway, which only has to know the names.
#[derive(Debug, Args)]
pub struct SinkNameArgs {
    /// The name of a receiver that the alerts service has (--sink there), as NAME or NAME=URL; may be repeated.
    #[arg(id = "sink", long = "sink", value_name = "NAME")]
    pub sinks: Vec<String>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    name: String,
    value: String,
}

impl SinkArgs {
    /// The sinks, with their secrets.
    ///
    /// # Errors
    /// When one can't be used; the error names the option and says what to do.
    pub fn load(&self) -> Result<Vec<Sink>> {
        for (option, all) in [("--sink", &self.sinks), ("--sink-secret", &self.secrets)] {
            for (i, one) in all.iter().enumerate() {
                let again = all[..i].iter().any(|before| before.name == one.name);
                ensure!(!again, "{option} names {} twice", one.name);
            }
        }
        for Named { name, .. } in &self.secrets {
            let known = self.sinks.iter().any(|sink| sink.name == *name);
            ensure!(
                known,
                "--sink-secret {name}=FILE: there is no --sink {name}=URL"
            );
        }
        self.sinks.iter().map(|sink| self.sink(sink)).collect()
    }

    fn sink(&self, Named { name, value }: &Named) -> Result<Sink> {
        let secret = self.secrets.iter().find(|secret| secret.name == *name);
        let secret = secret.map(|file| read_secret(Path::new(&file.value)));
        let secret = secret
            .transpose()
            .with_context(|| format!("--sink-secret {name}=FILE"))?;
        Sink::new(name, value, secret).with_context(|| format!("--sink {name}=URL"))
    }
}

impl SinkNameArgs {
    /// The names.
    pub fn names(&self) -> Vec<String> {
        let name = |sink: &String| {
            sink.split_once('=')
                .map_or(&**sink, |(name, _)| name)
                .to_owned()
        };
        self.sinks.iter().map(name).collect()
    }
}

fn read_secret(file: &Path) -> Result<String> {
    let secret =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("{} is empty", file.display());
    }
    Ok(secret.to_owned())
}

fn named(text: &str) -> Result<Named, &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(Named {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write a name, an equals sign and what it stands for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(sinks: &[&str], secrets: &[String]) -> SinkArgs {
        let all = |texts: Vec<&str>| {
            texts
                .into_iter()
                .map(|text| named(text).expect(text))
                .collect()
        };
        SinkArgs {
            sinks: all(sinks.to_vec()),
            secrets: all(secrets.iter().map(String::as_str).collect()),
        }
    }

    #[test]
    fn sinks_are_loaded_with_their_secrets_or_say_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).expect("writable");
            file.display().to_string()
        };
        let (secret, empty) = (write("secret", "p\n"), write("empty", "\n"));
        let (mqtt, nats) = ("ops=mqtt://u@broker/alerts", "bus=nats://127.0.0.1/alerts");
        let loaded = args(&[mqtt, nats], &[format!("ops={secret}")]).load();
        let names: Vec<_> = loaded
            .expect("sinks")
            .iter()
            .map(|s| s.name().to_owned())
            .collect();
        assert_eq!(names, ["ops", "bus"]);
        let check = |sinks: &[&str], secrets: &[String], expected: &str| {
            let error = args(sinks, secrets).load().expect_err(expected);
            let said = format!("{error:#}");
            assert!(said.contains(expected), "{said}");
        };
        check(
            &[mqtt],
            &[],
            "--sink ops=URL: the sink \"ops\" cannot be used: it has a user",
        );
        check(&["ops=kafka://broker/x"], &[], "kafka:// is not known");
        check(&[nats, nats], &[], "--sink names bus twice");
        check(
            &[nats],
            &[format!("ops={secret}")],
            "there is no --sink ops=URL",
        );
        check(
            &[mqtt],
            &["ops=/nowhere".to_owned()],
            "--sink-secret ops=FILE: cannot read /nowhere",
        );
        check(&[mqtt], &[format!("ops={empty}")], "is empty");
        assert!(named("mqtt://broker").is_err());
        let names = SinkNameArgs {
            sinks: vec!["ops".to_owned(), nats.to_owned()],
        };
        assert_eq!(names.names(), ["ops", "bus"]);
    }
}
