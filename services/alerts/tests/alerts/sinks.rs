//! Receivers beside webhooks, each a real one: a NATS server, an MQTT broker, an SMTP server.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use futures::StreamExt;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use sightline_alerts::Sink;
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Ask, StreamName};
use sightline_proto::ids;
use sightline_proto::internal::{AlertRecord, Attempt, RedeliveryRequest, RedeliveryResponse};
use sightline_proto::v1::delivery::Outcome;
use sightline_proto::v1::{Alert, DeliveryMode, Phase};
use sightline_testkit::{python, until};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{EPOCH_US, LONG, Platform, Receiver};

const PASSWORD: &str = "not-to-be-seen";

/// A platform with a sink "ops" and an alert that tells it of all.
async fn watching(url: &str, secret: Option<&str>) -> Result<Platform> {
    let mut platform = Platform::start().await?;
    platform.sinks = vec![Sink::new("ops", url, secret.map(str::to_owned))?];
    platform.restart().await?;
    platform.alert("a", "").await?;
    change(&platform, |alert| {
        alert.sinks = vec!["ops".into()];
        alert.set_delivery(DeliveryMode::All);
    })
    .await?;
    Ok(platform)
}

async fn change(platform: &Platform, change: impl Fn(&mut Alert)) -> Result<()> {
    let changed = platform.change::<AlertRecord>("alr-a", |record| {
        change(record.alert.get_or_insert_default());
    });
    changed.await
}

/// The log of the sink's attempts once it has so many.
async fn attempts(platform: &Platform, count: usize) -> Result<Vec<Attempt>> {
    let attempts: Vec<Attempt> = platform
        .held(StreamName::Attempts, "attempt.sink-ops", count)
        .await?;
    for attempt in &attempts {
        assert_eq!((&*attempt.sink, &*attempt.endpoint_id), ("ops", ""));
        assert!(!attempt.error.contains(PASSWORD), "{}", attempt.error);
    }
    Ok(attempts)
}

fn firing() -> String {
    ids::firing_id("alr-a", EPOCH_US, EPOCH_US)
}

/// A port that nobody answers on until a server takes it, and that is given to nobody else while the socket lives.
fn reserved_port() -> Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    // Servers listen beside a socket that does not, if both say so.
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

async fn listens(port: u16) -> Result<()> {
    until("the server", async || {
        let connected = TcpStream::connect(("127.0.0.1", port)).await;
        Ok(connected.ok().map(drop))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_of_another_nats_server_gets_firings() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
    let config = server.config("sink");
    let token = config
        .login
        .token()
        .context("it asks for a token")?
        .to_owned();
    let options = async_nats::ConnectOptions::with_token(token.clone());
    let client = options.connect(&config.url).await?;
    let mut subscriber = client.subscribe("alerts.>").await?;
    client.flush().await?;
    let url = format!("{}/alerts.ops", config.url);
    let platform = watching(&url, Some(&token)).await?;
    platform.verdict("a", 0, 0.9).await?;
    for (phase, id) in [
        ("fired", firing()),
        ("closed", format!("{}_closed", firing())),
    ] {
        let message = timeout(LONG, subscriber.next())
            .await?
            .context("a message")?;
        let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
        assert_eq!(
            (&body["phase"], &body["firing_id"]),
            (&phase.into(), &firing().into())
        );
        let headers = message.headers.context("headers")?;
        assert_eq!(headers.get("Nats-Msg-Id").context("an id")?.as_str(), id);
        // The next one once this one is there: several are handed over at a time.
        platform.verdict("a", 1, 0.1).await?;
    }
    let attempts = attempts(&platform, 2).await?;
    assert!(attempts.iter().all(|a| a.outcome() == Outcome::Delivered));
    for attempt in attempts {
        let first = attempt.phase() == Phase::Fired;
        assert_eq!(attempt.decision_to_2xx_us > 0, first, "{attempt:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_refuses_is_tried_again_and_delays_no_webhook() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
    let url = format!("{}/alerts.ops", server.config("sink").url);
    let platform = watching(&url, Some(PASSWORD)).await?;
    let mut receiver = Receiver::start([]).await?;
    change(&platform, |alert| {
        alert.callback_url.clone_from(&receiver.url);
        alert.sinks.push("elsewhere".into());
    })
    .await?;
    platform.verdict("a", 0, 0.9).await?;
    assert_eq!(receiver.next().await?.1["phase"], "fired");
    let outcomes: Vec<_> = attempts(&platform, 3)
        .await?
        .iter()
        .map(Attempt::outcome)
        .collect();
    assert_eq!(
        outcomes,
        [Outcome::Retrying, Outcome::Retrying, Outcome::Failed]
    );
    let elsewhere: Vec<Attempt> = platform
        .held(StreamName::Attempts, "attempt.sink-elsewhere", 1)
        .await?;
    let error = &elsewhere[0].error;
    assert!(error.contains("--sink elsewhere=URL"), "{error}");
    Ok(())
}

/// A broker that knows one user.
async fn broker(port: u16, dir: &Path) -> Result<Child> {
    let passwords = dir.join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["sightline", PASSWORD])
        .status()
        .await
        .context("mosquitto_passwd: scripts/setup test installs it")?;
    assert!(made.success());
    let config = dir.join("mosquitto.conf");
    let lines = format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
        passwords.display()
    );
    std::fs::write(&config, lines)?;
    // Debian puts it where only administrators' shells look.
    let program = ["/usr/sbin/mosquitto", "mosquitto"]
        .into_iter()
        .find(|program| Path::new(program).exists());
    let child = Command::new(program.unwrap_or("mosquitto"))
        .arg("-c")
        .arg(&config)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("mosquitto: scripts/setup test installs it")?;
    listens(port).await?;
    Ok(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_an_mqtt_broker_gets_firings_once_it_is_there() -> Result<()> {
    let ((_reserved, port), dir) = (reserved_port()?, tempfile::tempdir()?);
    let url = format!("mqtt://sightline@127.0.0.1:{port}/site%201/alerts");
    let platform = watching(&url, Some(PASSWORD)).await?;
    platform.verdict("a", 0, 0.9).await?;
    let down = attempts(&platform, 3).await?;
    assert_eq!(down[2].outcome(), Outcome::Failed);
    assert!(down[2].error.contains("refused"), "{}", down[2].error);

    let _broker = broker(port, dir.path()).await?;
    let mut options = MqttOptions::new("subscriber", ("127.0.0.1", port));
    options.set_credentials("sightline", PASSWORD);
    let (client, mut events) = AsyncClient::builder(options).capacity(10).build();
    client.subscribe("site 1/#", QoS::AtLeastOnce).await?;
    let mut next = async |wanted: fn(&Packet) -> bool| -> Result<Packet> {
        let reading = async {
            loop {
                if let Event::Incoming(packet) = events.poll().await?
                    && wanted(&packet)
                {
                    return anyhow::Ok(packet);
                }
            }
        };
        timeout(LONG, reading).await?
    };
    next(|packet| matches!(packet, Packet::SubAck(_))).await?;
    let asked = RedeliveryRequest {
        alert_id: "alr-a".into(),
        firing_id: firing(),
        ..RedeliveryRequest::default()
    };
    let answer: RedeliveryResponse = platform.ask(Ask::Redelivery, &asked).await?;
    assert_eq!((answer.count, &*answer.error), (1, ""));
    let Packet::Publish(message) = next(|packet| matches!(packet, Packet::Publish(_))).await?
    else {
        unreachable!("that was waited for");
    };
    let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
    assert_eq!(
        (&body["label"], &body["firing_id"]),
        (&"smoke".into(), &firing().into())
    );
    assert_eq!((message.qos, message.retain), (QoS::AtLeastOnce, false));
    assert_eq!(
        attempts(&platform, 4).await?[3].outcome(),
        Outcome::Delivered
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_get_firings() -> Result<()> {
    let (_reserved, port) = reserved_port()?;
    let mut server = Command::new(python::interpreter()?)
        .args([
            "-u",
            "-m",
            "aiosmtpd",
            "-n",
            "-l",
            &format!("127.0.0.1:{port}"),
        ])
        .args(["-c", "aiosmtpd.handlers.Debugging", "stdout"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    listens(port).await?;
    let said = server.stdout.take().context("its output")?;
    let mut lines = BufReader::new(said).lines();
    let url = format!(
        "smtp://127.0.0.1:{port}/?from=Sightline%20%3Calerts@example.org%3E&to=a@example.org&to=b@example.org"
    );
    let platform = watching(&url, None).await?;
    platform.verdict("a", 0, 0.9).await?;
    let firing = firing();
    for (subject, id, state) in [
        ("[warning] smoke", firing.clone(), "open"),
        (
            "[warning] smoke: closed",
            format!("{firing}_closed"),
            "closed",
        ),
    ] {
        let mut mail = Vec::new();
        loop {
            let line = timeout(LONG, lines.next_line()).await??.context("a line")?;
            if line.contains("END MESSAGE") {
                break;
            }
            mail.push(line);
        }
        let mail = mail.join("\n");
        for expected in [
            format!("Subject: {subject}\n"),
            format!("Message-ID: <{id}@example.org>\n"),
            "From: Sightline <alerts@example.org>\n".to_owned(),
            "To: a@example.org, b@example.org\n".to_owned(),
            "\"Detect smoke\" judged 90 % likely".to_owned(),
            format!("State: {state}\n"),
        ] {
            assert!(mail.contains(&expected), "{expected}{mail}");
        }
        assert!(!mail.contains("Watch:"), "nothing is recorded: {mail}");
        platform.verdict("a", 1, 0.1).await?;
    }
    let attempts = attempts(&platform, 2).await?;
    assert!(attempts.iter().all(|a| a.outcome() == Outcome::Delivered));
    Ok(())
}
