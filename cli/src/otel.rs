//! OpenTelemetry: which collector a server tells of itself, by the variables that every program has for it.

use clap::Args;
use sightline_service::telemetry::{Headers, Otlp};

use crate::args::Command;
use crate::secret::unrepeated;

/// The attribute that names a process.
const NAME: &str = "service.name";
/// Under which heading the options are listed.
const HEADING: &str = "OpenTelemetry";

/// Options of what runs as a server.
#[derive(Debug, Args)]
pub struct OtelArgs {
    /// A collector that takes OTLP over gRPC, for example http://collector:4317: it gets traces, log lines and metrics. Without it
    /// nothing is sent.
    #[arg(
        long,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        help_heading = HEADING
    )]
    pub otlp_endpoint: Option<String>,
    /// What its requests carry besides, as NAME=VALUE,... with values percent-encoded: authorization=Bearer%20KEY. Better given as
    /// the variable, since other users of the machine see a command line.
    #[arg(
        long,
        value_name = "PAIRS",
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true,
        value_parser = unrepeated::<Headers>(),
        help_heading = HEADING
    )]
    pub otlp_headers: Headers,
    /// What the process is called there; "sightline" for `up` and "sightline-ROLE" for a role if unset.
    #[arg(
        long,
        value_name = "NAME",
        env = "OTEL_SERVICE_NAME",
        help_heading = HEADING
    )]
    pub otel_service_name: Option<String>,
    /// What else is said of the process, as KEY=VALUE,...
    #[arg(
        long,
        value_name = "PAIRS",
        env = "OTEL_RESOURCE_ATTRIBUTES",
        value_delimiter = ',',
        value_parser = pair,
        help_heading = HEADING
    )]
    pub otel_resource_attributes: Vec<(String, String)>,
    /// Which part of the traces is kept, 0 to 1.
    #[arg(
        long,
        value_name = "RATIO",
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value_t = 1.0,
        value_parser = ratio,
        help_heading = HEADING
    )]
    pub otel_traces_sampler_arg: f64,
}

impl OtelArgs {
    /// None without a collector.
    fn otlp(&self, role: &str) -> Option<Otlp> {
        let endpoint = self.otlp_endpoint.clone().filter(|url| !url.is_empty())?;
        let mut attributes = self.otel_resource_attributes.clone();
        let named = attributes.iter().find(|(key, _)| key == NAME);
        let named = named.map(|(_, name)| name.clone());
        let own = self.otel_service_name.clone();
        attributes.retain(|(key, _)| key != NAME && !key.is_empty());
        Some(Otlp {
            endpoint,
            headers: self.otlp_headers.clone(),
            service: own
                .filter(|name| !name.is_empty())
                .or(named)
                .unwrap_or_else(|| role.to_owned()),
            version: env!("CARGO_PKG_VERSION"),
            attributes,
            sampling: self.otel_traces_sampler_arg,
        })
    }
}

/// The collector of what runs as a server, if it has one.
pub fn collector(command: &Command) -> Option<Otlp> {
    let (args, role) = match command {
        Command::Up(args) => (&args.otel, "sightline"),
        Command::Gateway(args) => (&args.role.otel, "sightline-gateway"),
        Command::Embeddings(args) => (&args.role.otel, "sightline-embeddings"),
        Command::Alerts(args) => (&args.role.otel, "sightline-alerts"),
        Command::Ingest(args) => (&args.role.otel, "sightline-ingest"),
        Command::Caption(args) => (&args.role.otel, "sightline-caption"),
        Command::Transcribe(args) => (&args.role.otel, "sightline-transcribe"),
        _ => return None,
    };
    args.otlp(role)
}

fn pair(text: &str) -> Result<(String, String), String> {
    // An empty variable is none.
    if text.is_empty() {
        return Ok(Default::default());
    }
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write KEY=VALUE, and commas between several".to_owned()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    if text.is_empty() {
        return Ok(1.0);
    }
    let ratio = text.trim().parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "write a number from 0 (no traces) to 1 (all)".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_process_is_called_what_the_most_telling_variable_says() {
        let collector = |further: &[&str]| {
            let arguments = ["sightline", "caption", "--nats-url", "nats://bus"];
            let cli = Cli::try_parse_from(arguments.iter().chain(further)).expect("understood");
            collector(&cli.command)
        };
        assert_eq!(collector(&["--otlp-endpoint", ""]), None);
        let to = ["--otlp-endpoint", "http://c:4317"];
        let empty = [
            "--otel-resource-attributes",
            "",
            "--otel-traces-sampler-arg",
            "",
        ];
        let plain = collector(&[&to[..], &empty].concat()).expect("a collector");
        assert_eq!(Some(&plain), collector(&to).as_ref());
        assert_eq!(plain.attributes, []);
        assert_eq!(
            (plain.service.as_str(), plain.sampling),
            ("sightline-caption", 1.0)
        );
        let pairs = ["--otel-resource-attributes", "service.name=b, env=lab"];
        let told = collector(&[&to[..], &pairs].concat()).expect("a collector");
        assert_eq!(told.service, "b");
        assert_eq!(told.attributes, [("env".to_owned(), "lab".to_owned())]);
        let named = [
            "--otel-service-name",
            "a",
            "--otel-traces-sampler-arg",
            "0.25",
        ];
        let named = collector(&[&to[..], &pairs, &named].concat()).expect("a collector");
        assert_eq!((named.service.as_str(), named.sampling), ("a", 0.25));
        for wrong in [
            ["--otel-traces-sampler-arg", "2"],
            ["--otel-resource-attributes", "lab"],
        ] {
            let arguments = ["sightline", "up"].iter().chain(&wrong);
            assert!(Cli::try_parse_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
