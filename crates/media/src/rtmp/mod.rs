//! RTMP: asks a server for a stream, and hands its coded pictures and sound to the pipeline.
//!
//! By hand, because GStreamer's client names the machine that it is told to connect to, which is not the camera's name where the
//! address is decided on here, and its FLV knows no H.265.

mod amf;
mod chunks;
mod intake;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;
use url::Url;

use self::amf::{Value, Writer};
use self::chunks::{Message, Reader};
use self::intake::Intake;
use crate::background::Background;
use crate::codecs::Medium;
use crate::error::Failure;
use crate::session::Session;
use crate::target::Target;
use crate::tracks::Tracks;

/// The ports of RTMP, plain and with TLS.
pub(crate) const PORTS: (u16, u16) = (1935, 443);
/// How long the server may take to answer what it is asked first.
const ANSWER: Duration = Duration::from_secs(8);
/// What this side's messages may be long without being cut.
const OUR_CHUNK: u32 = 64 << 10;
/// The length of what both sides greet each other with.
const GREETING: usize = 1536;

const SET_CHUNK_SIZE: u8 = 1;
const ABORT: u8 = 2;
const ACKNOWLEDGED: u8 = 3;
const CONTROL: u8 = 4;
const WINDOW: u8 = 5;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const COMMAND: u8 = 20;
const AGGREGATE: u8 = 22;

/// What to ask the server for.
struct Wanted {
    application: String,
    stream: String,
    /// How the server itself is called.
    server: String,
}

/// Connects, and lets tracks attach themselves as they are found. What is returned is to be kept as long.
///
/// # Errors
/// When the URL names no stream.
pub(crate) fn start(
    target: Target,
    url: &Url,
    pipeline: &gst::Pipeline,
    session: &Arc<Session>,
    tracks: &Arc<Tracks>,
) -> Result<Background, Failure> {
    let wanted = wanted(url, &target)?;
    let intake = Intake::new(pipeline.clone(), Arc::clone(tracks));
    let session = Arc::clone(session);
    Background::start("rtmp-source", move || async move {
        if let Err(failure) = receive(&target, &wanted, intake, &session).await {
            session.fail(failure);
        }
    })
}

/// `rtmp://host/application/stream`: the application may have several parts.
fn wanted(url: &Url, target: &Target) -> Result<Wanted, Failure> {
    let path = url.path().trim_start_matches('/');
    let (application, stream) = path
        .rsplit_once('/')
        .filter(|(application, stream)| !application.is_empty() && !stream.is_empty())
        .ok_or_else(|| Failure::permanent("its URL names no application and stream"))?;
    let query = url.query().map_or(String::new(), |q| format!("?{q}"));
    let Target { host, port, .. } = target;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    Ok(Wanted {
        application: application.to_owned(),
        stream: format!("{stream}{query}"),
        server: format!("{}://{host}:{port}/{application}", url.scheme()),
    })
}

async fn receive(
    target: &Target,
    wanted: &Wanted,
    intake: Intake,
    session: &Session,
) -> Result<(), Failure> {
    let connected = target.connect().await?;
    if target.tls {
        let secured = target.secure(connected).await?;
        Client::greet(secured)
            .await?
            .play(wanted, intake, session)
            .await
    } else {
        Client::greet(connected)
            .await?
            .play(wanted, intake, session)
            .await
    }
}

/// One connection.
struct Client<Connection> {
    from: ReadHalf<Connection>,
    to: WriteHalf<Connection>,
    reader: Reader,
    /// The server wants to be told after so many bytes.
    window: u64,
    acknowledged: u64,
}

impl<Connection: AsyncRead + AsyncWrite> Client<Connection> {
    /// What both sides say first.
    async fn greet(connection: Connection) -> Result<Self, Failure> {
        let (mut from, mut to) = tokio::io::split(connection);
        let greeting = async {
            let mut ours = vec![0; 1 + GREETING];
            ours[0] = 3;
            to.write_all(&ours).await?;
            let mut theirs = vec![0; 1 + GREETING];
            from.read_exact(&mut theirs).await?;
            if theirs[0] != 3 {
                return Ok(false);
            }
            to.write_all(&theirs[1..]).await?;
            from.read_exact(&mut theirs[1..]).await?;
            Ok::<_, std::io::Error>(true)
        };
        match timeout(ANSWER, greeting).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                return Err(Failure::permanent("what answers there is no RTMP server"));
            }
            Ok(Err(error)) => {
                let reason = format!("the connection broke before it was RTMP: {error}");
                return Err(Failure::passing(reason));
            }
            Err(_) => return Err(Failure::passing("the server does not answer in RTMP")),
        }
        Ok(Self {
            from,
            to,
            reader: Reader::default(),
            window: u64::MAX,
            acknowledged: 0,
        })
    }

    /// Asks for the stream and takes what comes.
    async fn play(
        mut self,
        wanted: &Wanted,
        mut intake: Intake,
        session: &Session,
    ) -> Result<(), Failure> {
        self.send(SET_CHUNK_SIZE, OUR_CHUNK.to_be_bytes().to_vec(), 0)
            .await?;
        let texts = [
            ("app", wanted.application.as_str()),
            ("flashVer", "LNX 9,0,124,2"),
            ("tcUrl", wanted.server.as_str()),
        ];
        let numbers = [
            ("capabilities", 15.0),
            ("audioCodecs", 4071.0),
            ("videoCodecs", 252.0),
            ("videoFunction", 1.0),
        ];
        let connect = Writer::default().text("connect").number(1.0);
        let connect = connect.object(&texts, &numbers, &["hvc1", "avc1"]);
        self.send(COMMAND, connect.0, 0).await?;
        loop {
            let message = self.reader.next(&mut self.from).await?;
            session.activity.received();
            self.acknowledge().await?;
            match message.kind {
                COMMAND => self.answered(wanted, &message.data).await?,
                AUDIO | VIDEO | AGGREGATE => take(&mut intake, message)?,
                _ => self.control(&message).await?,
            }
        }
    }

    /// The server answers, or says something of the stream.
    async fn answered(&mut self, wanted: &Wanted, data: &[u8]) -> Result<(), Failure> {
        let values = amf::read_all(data);
        let (Some(Value::Text(name)), Some(Value::Number(of))) = (values.first(), values.get(1))
        else {
            return Ok(());
        };
        let code = values.iter().find_map(|value| value.text("code"));
        match (name.as_str(), *of as u32) {
            ("_result", 1) => {
                let create = Writer::default().text("createStream").number(2.0).null();
                self.send(COMMAND, create.0, 0).await
            }
            ("_result", 2) => {
                let id = match values.get(3) {
                    Some(Value::Number(id)) => *id as u32,
                    _ => 1,
                };
                let play = Writer::default().text("play").number(3.0).null();
                // A live stream, or else a recorded one.
                let play = play.text(&wanted.stream).number(-2000.0);
                self.send(COMMAND, play.0, id).await
            }
            ("_error", _) => Err(refused(code)),
            ("onStatus", _) => match code {
                Some("NetStream.Play.StreamNotFound" | "NetStream.Play.FileNotFound") => {
                    Err(Failure::passing("the server knows no such stream"))
                }
                Some("NetStream.Play.Failed" | "NetConnection.Connect.Rejected") => {
                    Err(refused(code))
                }
                Some(
                    "NetStream.Play.Stop"
                    | "NetStream.Play.Complete"
                    | "NetStream.Play.UnpublishNotify"
                    | "NetConnection.Connect.Closed",
                ) => Err(Failure::passing("the camera ended the stream")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What keeps the connection going.
    async fn control(&mut self, message: &Message) -> Result<(), Failure> {
        let number = |at: usize| {
            let bytes = message.data.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        match (message.kind, number(0)) {
            (SET_CHUNK_SIZE, Some(size)) => self.reader.set_size(size),
            (ABORT, Some(stream)) => self.reader.abort(stream),
            (WINDOW, Some(window)) => self.window = u64::from(window.max(1)),
            // Asked whether this side is still there.
            (CONTROL, _) if message.data.starts_with(&[0, 6]) => {
                let answer = [&[0, 7][..], message.data.get(2..6).unwrap_or_default()].concat();
                self.send(CONTROL, answer, 0).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        let read = self.reader.read;
        if read - self.acknowledged < self.window.div_ceil(2) {
            return Ok(());
        }
        self.acknowledged = read;
        self.send(ACKNOWLEDGED, (read as u32).to_be_bytes().to_vec(), 0)
            .await
    }

    async fn send(&mut self, kind: u8, data: Vec<u8>, stream_id: u32) -> Result<(), Failure> {
        let message = Message {
            kind,
            time_ms: 0,
            data,
        };
        let bytes = chunks::write(&message, stream_id);
        let sent = timeout(ANSWER, self.to.write_all(&bytes)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::passing(format!("the connection broke: {error}"))),
            Err(_) => Err(Failure::passing("the server does not listen")),
        }
    }
}

/// Sound, a picture, or several of them in one message.
fn take(intake: &mut Intake, message: Message) -> Result<(), Failure> {
    match message.kind {
        AUDIO => intake.take(Medium::Audio, message.time_ms, &message.data),
        VIDEO => intake.take(Medium::Video, message.time_ms, &message.data),
        _ => {
            let mut rest = message.data.as_slice();
            let mut first = None;
            while let [kind, a, b, c, ta, tb, tc, te, _, _, _, after @ ..] = rest {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                let time_ms = u32::from_be_bytes([*te, *ta, *tb, *tc]);
                let Some(data) = after.get(..length) else {
                    break;
                };
                let since_ms = time_ms.wrapping_sub(*first.get_or_insert(time_ms));
                let time_ms = message.time_ms.wrapping_add(since_ms);
                match *kind {
                    AUDIO => intake.take(Medium::Audio, time_ms, data)?,
                    VIDEO => intake.take(Medium::Video, time_ms, data)?,
                    _ => {}
                }
                rest = after.get(length + 4..).unwrap_or_default();
            }
            Ok(())
        }
    }
}

/// The server's own word may repeat the URL: only its code is told.
fn refused(code: Option<&str>) -> Failure {
    let code: String = code.unwrap_or("no reason").chars().take(60).collect();
    Failure::passing(format!("the server refuses the stream: {code}"))
}
