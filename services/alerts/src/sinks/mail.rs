//! Firings as mails, over SMTP.

use std::time::{Duration, SystemTime};

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::Value;
use sightline_proto::internal::Delivery;
use url::Url;

use super::Cause;
use super::address::Address;

const PORT: u16 = 25;
/// With a user: the port for handing mails in.
const SUBMISSION_PORT: u16 = 587;
const ENCRYPTED_PORT: u16 = 465;
/// How long one answer of the server may take.
const ANSWERING: Duration = Duration::from_secs(8);
/// The longest label in a subject line, in characters.
const LABEL: usize = 100;
/// What a mail says, one a line where it is known.
const LINES: [(&str, &str); 9] = [
    ("Severity", "severity"),
    ("State", "state"),
    ("From", "start_time"),
    ("To", "end_time"),
    ("Confidence", "confidence"),
    ("Basis", "basis"),
    ("Watch", "player_url"),
    ("Picture", "thumbnail_url"),
    ("Stream", "rtstream_id"),
];

/// Mailboxes with a server that takes mails for them.
#[derive(Clone)]
pub(super) struct Mailboxes {
    from: Mailbox,
    to: Vec<Mailbox>,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl Mailboxes {
    pub(super) fn new(address: Address, url: &Url) -> Result<Self, String> {
        let (mut from, mut to) = (None, Vec::new());
        for (name, value) in url.query_pairs() {
            match &*name {
                "from" => from = Some(mailbox(&value)?),
                "to" => to.push(mailbox(&value)?),
                _ => return Err(format!("{name:?} is not known; there are from and to")),
            }
        }
        let from = from.ok_or("write from=ADDRESS behind the question mark")?;
        if to.is_empty() {
            return Err("write at least one to=ADDRESS behind the question mark".to_owned());
        }
        Ok(Self {
            from,
            to,
            transport: transport(address)?,
        })
    }

    /// Returns once the server has taken responsibility for it.
    pub(super) async fn send(
        &self,
        id: &str,
        delivery: &Delivery,
        now_us: i64,
    ) -> Result<(), Cause> {
        let mail = self.mail(id, &delivery.body, now_us)?;
        self.transport.send(mail).await?;
        Ok(())
    }

    /// The same message has the same id each time: mail programs show it once.
    fn mail(&self, id: &str, body: &[u8], now_us: i64) -> Result<Message, Cause> {
        let body: Value = serde_json::from_slice(body)?;
        let since = Duration::from_micros(u64::try_from(now_us).unwrap_or(0));
        let domain = self.from.email.domain();
        let mail = Message::builder()
            .from(self.from.clone())
            .subject(subject(&body))
            .date(SystemTime::UNIX_EPOCH + since)
            .message_id(Some(format!("<{id}@{domain}>")));
        let mail = self.to.iter().cloned().fold(mail, MessageBuilder::to);
        Ok(mail.header(ContentType::TEXT_PLAIN).body(text(&body))?)
    }
}

fn transport(address: Address) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let password = address.password()?;
    let parameters = TlsParameters::new(address.host.clone())
        .map_err(|error| format!("{:?} is no name that encrypts: {error}", address.host))?;
    // A password is only said where nobody listens.
    let (tls, usual) = match password {
        _ if address.encrypted => (Tls::Wrapper(parameters), ENCRYPTED_PORT),
        Some(_) => (Tls::Required(parameters), SUBMISSION_PORT),
        None => (Tls::Opportunistic(parameters), PORT),
    };
    let host = address.bracketed_host().into_owned();
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(address.port.unwrap_or(usual))
        .tls(tls)
        .timeout(Some(ANSWERING));
    if let Some(password) = password {
        let user = address.user.clone();
        builder = builder.credentials(Credentials::new(user, password.to_owned()));
    }
    Ok(builder.build())
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no mail address"))
}

fn subject(body: &Value) -> String {
    let label = string(body, "label");
    let label: String = label
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LABEL)
        .collect();
    match string(body, "phase").as_str() {
        "fired" => format!("[{}] {label}", string(body, "severity")),
        phase => format!("[{}] {label}: {phase}", string(body, "severity")),
    }
}

fn text(body: &Value) -> String {
    let mut text = format!("{}\r\n\r\n", string(body, "explanation"));
    for (name, field) in LINES {
        let value = string(body, field);
        if !value.is_empty() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text
}

/// Empty where it is not known.
fn string(body: &Value, field: &str) -> String {
    match &body[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
