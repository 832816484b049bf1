//! Reading an object as it comes, with a deadline on every piece.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::{GetResult, GetResultPayload};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::error::StoreError;

/// How long the next piece of an object may take.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);
/// How much of a local file is read at once.
const PIECE: u64 = 256 * 1024;

/// An object, or a part of it, as it is read.
pub struct ObjectBody {
    /// Size of the whole object.
    pub size: u64,
    /// Which part this is: from, and up to but without.
    pub range: Range<u64>,
    /// Its bytes.
    pub stream: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl std::fmt::Debug for ObjectBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectBody")
            .field("size", &self.size)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl ObjectBody {
    pub(crate) fn new(got: GetResult) -> Self {
        let (size, range) = (got.meta.size, got.range.clone());
        let stream = match got.payload {
            GetResultPayload::File(file, path) => file_pieces(file, &path, range.clone()),
            GetResultPayload::Stream(pieces) => {
                pieces.map(|piece| piece.map_err(unreadable)).boxed()
            }
        };
        Self {
            size,
            range,
            stream: in_time(stream),
        }
    }

    /// Nothing of an object of this size, at `at`.
    pub(crate) fn empty(size: u64, at: u64) -> Self {
        Self {
            size,
            range: at..at,
            stream: stream::empty().boxed(),
        }
    }

    /// All of it in memory; only for what is known to be small.
    ///
    /// # Errors
    /// When a piece of it can't be read.
    pub async fn bytes(mut self) -> Result<Bytes, StoreError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.stream.next().await {
            let piece = piece?;
            if all.is_empty() && piece.len() as u64 == self.range.end - self.range.start {
                return Ok(piece);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

type Pieces = BoxStream<'static, Result<Bytes, StoreError>>;

/// The store's own reader takes 8 KiB at a time, each on another thread.
fn file_pieces(file: std::fs::File, path: &Path, range: Range<u64>) -> Pieces {
    let path = path.display().to_string();
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(PIECE as usize);
    let state = Some((file, range.start, false));
    stream::try_unfold(state, move |state| {
        let path = path.clone();
        let end = range.end;
        async move {
            let Some((mut file, at, sought)) = state else {
                return Ok(None);
            };
            if at >= end {
                return Ok(None);
            }
            let failed = |error: std::io::Error| {
                unreadable(object_store::Error::Generic {
                    store: "LocalFileSystem",
                    source: format!("{path}: {error}").into(),
                })
            };
            if !sought && at > 0 {
                file.seek(std::io::SeekFrom::Start(at))
                    .await
                    .map_err(failed)?;
            }
            let mut piece = BytesMut::zeroed(PIECE.min(end - at) as usize);
            file.read_exact(&mut piece).await.map_err(failed)?;
            let next = at + piece.len() as u64;
            Ok(Some((piece.freeze(), Some((file, next, true)))))
        }
    })
    .boxed()
}

/// Ends with an error when a piece takes too long.
fn in_time(pieces: Pieces) -> Pieces {
    stream::unfold(Some(pieces), |pieces| async {
        let mut pieces = pieces?;
        match tokio::time::timeout(PIECE_DEADLINE, pieces.next()).await {
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(pieces))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((
                Err(StoreError::Deadline {
                    seconds: PIECE_DEADLINE.as_secs(),
                }),
                None,
            )),
        }
    })
    .boxed()
}

fn unreadable(source: object_store::Error) -> StoreError {
    StoreError::Failed {
        action: "read",
        source,
    }
}
