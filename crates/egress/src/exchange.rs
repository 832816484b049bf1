//! Asking a server that the operator named, and reading its whole answer: a remote model, not a receiver of webhooks.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::target::Target;
use crate::{Egress, EgressError, failure, retry_after};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// GET or POST.
    pub method: Method,
    /// Where.
    pub url: String,
    /// With which headers; mark secret ones as sensitive.
    pub headers: HeaderMap,
    /// With which body.
    pub body: Bytes,
}

/// An answer with all of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// How long the server asks to be left alone (header Retry-After), as it said: bound it.
    pub retry_after: Option<Duration>,
    /// Header Content-Type; empty if there is none.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Egress {
    /// Asks, and reads an answer of at most `max_body` bytes, all within `deadline`.
    ///
    /// # Errors
    /// When there is no answer, or not all of it: the URL or the address is refused, no connection comes about or it breaks, the
    /// body is longer, or the deadline passes.
    pub async fn exchange(
        &self,
        question: Question,
        max_body: usize,
        deadline: Duration,
    ) -> Result<Answer, EgressError> {
        let mut request = Request::new(Full::new(question.body));
        *request.method_mut() = question.method;
        *request.uri_mut() = Target::parse(&question.url)?.uri;
        *request.headers_mut() = question.headers;
        let asking = async {
            let answered = self.client.request(request).await.map_err(failure)?;
            let (head, body) = answered.into_parts();
            let read = Limited::new(body, max_body).collect().await;
            let body = read.map_err(|source| EgressError::Broken {
                source: match source.downcast::<LengthLimitError>() {
                    Ok(_) => format!("the answer is longer than {max_body} bytes").into(),
                    Err(source) => source,
                },
            })?;
            let content_type = head.headers.get(CONTENT_TYPE);
            Ok(Answer {
                status: head.status.as_u16(),
                retry_after: retry_after(&head.headers),
                content_type: content_type
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned(),
                body: body.to_bytes(),
            })
        };
        timeout(deadline, asking)
            .await
            .map_err(|_| EgressError::Deadline(deadline))?
    }
}
