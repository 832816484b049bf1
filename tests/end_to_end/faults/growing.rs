//! Streams that go on: more of their windows are described.

use anyhow::{Context, Result};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::until;

use super::fleet::Fleet;

/// The windows of a stream that are described, and how many there were at first.
#[derive(Default)]
struct Growing {
    before: Option<usize>,
    failed: Option<anyhow::Error>,
}

impl Growing {
    /// Whether there are so many more.
    async fn by(
        &mut self,
        windows: usize,
        fleet: &Fleet,
        (stream, index): &(String, String),
    ) -> Option<()> {
        // The bus may be away.
        match Ledger::read(&fleet.ground.bus, stream).await {
            Ok(ledger) => {
                let now = ledger.windows(index).len();
                let first = *self.before.get_or_insert(now);
                (now >= first + windows).then_some(())
            }
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    fn told(self, going: Result<()>, (stream, _): &(String, String)) -> Result<()> {
        let Self { before, failed } = self;
        going.with_context(|| format!("{stream}: {before:?} before, {failed:?}"))
    }
}

/// Waits until so many more windows of each stream are described.
pub async fn more(fleet: &Fleet, streams: &[(String, String)], windows: usize) -> Result<()> {
    for one in streams {
        let mut growing = Growing::default();
        let going = until("more windows", async || {
            Ok(growing.by(windows, fleet, one).await)
        })
        .await;
        growing.told(going, one)?;
    }
    Ok(())
}

/// The same, and what ends by itself is started again meanwhile.
pub async fn recovers(
    fleet: &mut Fleet,
    streams: &[(String, String)],
    windows: usize,
) -> Result<()> {
    for one in streams {
        let mut growing = Growing::default();
        let going = until("more windows", async || {
            fleet.supervise().await?;
            Ok(growing.by(windows, fleet, one).await)
        })
        .await;
        growing.told(going, one)?;
    }
    Ok(())
}
