//! The command line of `event backtest` and `alert latency`.

use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::client::moment::{Moment, duration};

/// Options of `event backtest`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true), group = ArgGroup::new("where").required(true))]
pub struct BacktestArgs {
    /// What to watch for, for example "Detect pedestrians crossing the zebra".
    #[arg(group = "what")]
    pub prompt: Option<String>,
    /// An event, whose prompt is taken.
    #[arg(long, value_name = "ID", group = "what")]
    pub event: Option<String>,
    /// The index whose windows are judged.
    #[arg(long, value_name = "ID", group = "where")]
    pub index: Option<String>,
    /// A stream, by its id or name, that has one index of its pictures.
    #[arg(long, value_name = "NAME", group = "where")]
    pub stream: Option<String>,
    /// From this time on, or from so long ago: 2026-11-26T08:00:00Z, or 90s, 10m, 2h.
    #[arg(long, value_name = "TIME")]
    pub from: Moment,
    /// Up to then, 24 hours later at most; up to now if unset.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Moment>,
    /// From which probability on a window counts, above 0 and at most 1; the server's default if unset.
    #[arg(long, value_name = "P")]
    pub threshold: Option<f32>,
    /// How many of the last windows have to count; 1 if unset.
    #[arg(long, value_name = "N")]
    pub required: Option<u32>,
    /// Of how many windows; 1 if unset.
    #[arg(long, value_name = "M")]
    pub of: Option<u32>,
    /// After how many windows that do not count it is over; 1 if unset.
    #[arg(long, value_name = "N")]
    pub close_after: Option<u32>,
    /// For how long it does not fire again, for example 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub cooldown: Option<Duration>,
    /// When it truly happened, as START..END; may be repeated. With all of them, precision and recall are computed.
    #[arg(long = "label", value_name = "START..END")]
    pub labels: Vec<Stretch>,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// From.
    pub from: Moment,
    /// Up to.
    pub to: Moment,
}

impl FromStr for Stretch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text
            .split_once("..")
            .ok_or("write two times, such as 2026-11-26T08:00:00Z..2026-11-26T08:01:00Z")?;
        Ok(Self {
            from: from.parse()?,
            to: to.parse()?,
        })
    }
}

/// Options of `alert latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// Only of this alert.
    #[arg(long, value_name = "ID")]
    pub alert: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_two_times() {
        let at = |seconds: i64| Moment::At(seconds * 1_000_000);
        for (text, expected) in [
            (
                "1970-01-01T00:00:01Z..1970-01-01T00:00:03Z",
                Some((at(1), at(3))),
            ),
            (
                "2h..1h",
                Some((Moment::Ago(7_200_000_000), Moment::Ago(3_600_000_000))),
            ),
            ("2h", None),
            ("..", None),
        ] {
            let expected = expected.map(|(from, to)| Stretch { from, to });
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
