//! A server that was restarted has lost what was in memory: FRAMES and who reads it. Both are there again.

use anyhow::Result;
use async_trait::async_trait;
use sightline_bus::{
    Bus, BusError, Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work,
    work_side_by_side,
};
use sightline_proto::internal::FrameWindow;
use sightline_service::Shutdown;
use tokio::sync::mpsc;

use crate::harness::{Platform, eventually, next, scenes};

struct Windows(mpsc::Sender<u64>);

#[async_trait]
impl Handler<FrameWindow> for Windows {
    async fn handle(&self, received: &Received<FrameWindow>) -> Result<Vec<Outgoing>, Refusal> {
        let window = received.message.window;
        self.0.send(window).await.expect("the test waits");
        Ok(Vec::new())
    }
}

/// Takes windows as caption workers do, or one at a time.
async fn take(
    bus: Bus,
    what: Work,
    windows: Windows,
    is_side_by_side: bool,
) -> Result<(), BusError> {
    if is_side_by_side {
        work_side_by_side(&bus, what, windows, Shutdown::new()).await
    } else {
        work(&bus, what, windows, Shutdown::new()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_go_on_after_the_server_died() -> Result<()> {
    for is_side_by_side in [true, false] {
        let platform = Platform::start().await?;
        let bus = &platform.bus;
        let subject = Subject::Frames {
            model: "m".to_owned(),
            rtstream: "rts-1".to_owned(),
            sampling: "5000000x2".to_owned(),
        };
        let what = Work {
            stream: StreamName::Frames,
            filter: "frames.m.*.*".to_owned(),
            ..scenes("caption-m", -1)
        };
        let (handled, mut windows) = mpsc::channel(100);
        tokio::spawn(take(bus.clone(), what, Windows(handled), is_side_by_side));
        for window in 0..3 {
            if window > 0 {
                let connects = bus.connects();
                platform.kill_server()?;
                bus.reconnected(connects).await;
            }
            let message = FrameWindow {
                window,
                ..FrameWindow::default()
            };
            // A file that is played fast waits for room first.
            eventually(|| async {
                let outstanding = bus.outstanding(&subject).await;
                Ok(outstanding.is_ok_and(|waiting| waiting < 2).then_some(()))
            })
            .await?;
            let id = window.to_string();
            eventually(|| async { Ok(bus.publish(&subject, &id, &message).await.ok()) }).await?;
            while next(&mut windows).await? != window {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_nobody_reads_is_kept_after_the_server_died() -> Result<()> {
    let platform = Platform::start().await?;
    let bus = &platform.bus;
    let connects = bus.connects();
    platform.kill_server()?;
    bus.reconnected(connects).await;
    let subject = Subject::Frames {
        model: "m".to_owned(),
        rtstream: "rts-1".to_owned(),
        sampling: "5000000x2".to_owned(),
    };
    let message = FrameWindow::default();
    eventually(|| async { Ok(bus.publish(&subject, "0", &message).await.ok()) }).await?;
    platform.outstanding(&subject, 1).await
}
