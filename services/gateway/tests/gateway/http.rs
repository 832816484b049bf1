//! HTTP as it is on the wire, so that no client cleans up what a test sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Gateway, LONG};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The header of this name in lower case; empty without one.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }
}

impl Gateway {
    /// Asks for an address, whole or from its path on.
    pub async fn get(&self, address: &str) -> Answer {
        self.send("GET", address, &[]).await
    }

    pub async fn send(&self, method: &str, address: &str, headers: &[(&str, &str)]) -> Answer {
        let origin = format!("http://{}", self.address);
        let path = address.strip_prefix(&origin).unwrap_or(address);
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let talking = async {
            let mut socket = TcpStream::connect(self.address).await.expect("connects");
            socket.write_all(head.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await.expect("read");
            answer
        };
        let answer = tokio::time::timeout(LONG, talking).await.expect("in time");
        parse(&answer)
    }
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.expect("the end of the head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let answer = Answer {
        status: status.and_then(|s| s.parse().ok()).expect("a status"),
        headers: headers.collect(),
        body: answer[end + 4..].to_vec(),
    };
    assert_eq!(answer.header("transfer-encoding"), "", "its length is told");
    answer
}
