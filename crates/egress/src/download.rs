//! Fetching what is too large to be read at once from a server that the operator named: files of models.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::target::Target;
use crate::{Egress, EgressError, failure};

/// An answer whose body comes piece by piece.
#[derive(Debug)]
pub struct Opened {
    /// The HTTP status. A redirect is an answer like any other: whether to follow it is for the caller to say.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    patience: Duration,
}

impl Egress {
    /// Asks for `url`. The head of the answer has to come within the total timeout, each piece of its body within the same
    /// again: how long all of it takes is up to its size.
    ///
    /// # Errors
    /// When there is no answer: the URL or the address is refused, no connection comes about, or the deadline passes.
    pub async fn open(&self, url: &str, headers: HeaderMap) -> Result<Opened, EgressError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = Target::parse_long(url)?.uri;
        *request.headers_mut() = headers;
        let patience = self.timeouts.total;
        let answered = timeout(patience, self.client.request(request)).await;
        let answered = answered.map_err(|_| EgressError::Deadline(patience))?;
        let (head, body) = answered.map_err(failure)?.into_parts();
        Ok(Opened {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            patience,
        })
    }
}

impl Opened {
    /// The next piece of the body; None at its end.
    ///
    /// # Errors
    /// When the connection breaks, also before the length that was announced, or the piece is too long in coming.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, EgressError> {
        loop {
            let frame = timeout(self.patience, self.body.frame()).await;
            let frame = frame.map_err(|_| EgressError::Deadline(self.patience))?;
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Err(EgressError::Broken {
                        source: error.into(),
                    });
                }
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}
