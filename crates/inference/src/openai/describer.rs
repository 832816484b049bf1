//! Windows and texts judged and described by a remote model.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};

use super::asking::{Asker, Asking};
use super::client::Client;
use super::turns;
use crate::describe::Reply;
use crate::{About, Answers, Describer, InferenceError, Job, SubmitError};

/// Most jobs that have not ended; more are refused.
const MAX_JOBS: usize = 256;

/// A chat model that looks at pictures. Dropping it ends what is under way as [`Outcome::Stopped`](crate::Outcome).
///
/// Requests are made as a local engine computes: questions before prompts, streams in turn, the newest two jobs of each wait. A
/// quarter of the client's limit is kept for questions, so that those of one window do not wait for the descriptions of others. A
/// verdict is the probability of "yes" against "no" where the server tells log-probabilities, else 1 or 0.
pub struct RemoteDescriber {
    asker: Arc<Asker>,
    /// Where jobs are taken; ends the asking when it is dropped.
    asking: Sender<Arc<Asking>>,
    reads_text: bool,
    revision: String,
    /// Jobs that have not ended.
    jobs: Arc<AtomicUsize>,
}

impl RemoteDescriber {
    /// `now` tells the time in microseconds, by whatever clock `expires_us` of jobs is in. Requests run on `handle`.
    pub fn new(
        client: Client,
        reads_text: bool,
        now: impl Fn() -> i64 + Send + Sync + 'static,
        handle: Handle,
    ) -> Self {
        let revision = client.revision("describe 1");
        let asker = Arc::new(Asker::new(client, now));
        // As many as jobs: there is room for each.
        let (asking, jobs) = channel(MAX_JOBS);
        handle.spawn(turns::run(Arc::clone(&asker), jobs));
        Self {
            asker,
            asking,
            reads_text,
            revision,
            jobs: Arc::default(),
        }
    }

    fn check(&self, about: &About) -> Result<(), InferenceError> {
        match about {
            About::Text(_) if !self.reads_text => Err(InferenceError::InvalidInput(
                "this model is not configured to read text: set reads_text".to_owned(),
            )),
            About::Window { jpegs, .. } if jpegs.is_empty() => Err(InferenceError::InvalidInput(
                "a window needs at least one frame".to_owned(),
            )),
            // What is no JPEG would be refused by the server, once for every question.
            About::Window { jpegs, .. } if jpegs.iter().any(|j| !j.starts_with(&[0xff, 0xd8])) => {
                Err(InferenceError::Image {
                    problem: "it does not begin as one".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Describer for RemoteDescriber {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn reads_text(&self) -> bool {
        self.reads_text
    }

    fn submit(&self, job: Job) -> Result<Answers, SubmitError> {
        self.check(&job.about).map_err(SubmitError::Invalid)?;
        if self.jobs.fetch_add(1, Ordering::Relaxed) >= MAX_JOBS {
            self.jobs.fetch_sub(1, Ordering::Relaxed);
            return Err(SubmitError::Busy);
        }
        let expected = job.questions.len() + job.prompts.len();
        let (reply, answers) = Reply::new(expected, Arc::clone(&self.jobs));
        if expected == 0 {
            return Ok(answers);
        }
        let asking = Arc::new(Asking::new(Arc::clone(&self.asker), job, reply));
        self.asking
            .try_send(asking)
            .map_err(|_| SubmitError::Stopped)?;
        Ok(answers)
    }
}
