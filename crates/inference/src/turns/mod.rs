//! Whose turn it is, wherever the model computes: verdicts come before descriptions, streams take turns, what is too old or
//! wanted by nobody is given up, and of jobs that can get too old the newest of each stream wait, as on the bus.

mod queue;

use crate::Outcome;
use crate::describe::Reply;
use queue::FairQueue;

/// How many jobs of one stream that can expire wait to be judged, and to be described: a newer one takes the place of the
/// oldest, as windows do on the bus.
const NEWEST: usize = 2;

/// A job that waits.
pub(crate) trait Waits {
    /// Whose it is.
    fn stream(&self) -> &str;
    /// When nobody wants its answers any more, in the clock's microseconds. Of two jobs the one that expires later is the newer.
    fn expires_us(&self) -> Option<i64>;
    /// Where its answers go.
    fn reply(&self) -> &Reply;
    /// Whether something is still to be judged.
    fn has_questions(&self) -> bool;
}

/// Jobs that wait, and those that are at it.
pub(crate) struct Turns<W> {
    /// Jobs with questions, and the one that is looked at.
    urgent: FairQueue<W>,
    judging: Option<W>,
    /// Jobs that only wait for descriptions, and the one whose answers are begun.
    calm: FairQueue<W>,
    describing: Option<W>,
}

impl<W: Waits> Turns<W> {
    pub(crate) fn new() -> Self {
        Self {
            urgent: FairQueue::new(),
            judging: None,
            calm: FairQueue::new(),
            describing: None,
        }
    }

    /// Puts a job where it belongs, behind the others of its stream.
    pub(crate) fn add(&mut self, job: W) {
        let queue = if job.has_questions() {
            &mut self.urgent
        } else {
            &mut self.calm
        };
        let (stream, expires_us) = (job.stream().to_owned(), job.expires_us());
        queue.push(&stream, expires_us, job);
        if expires_us.is_some()
            && let Some(oldest) = queue.pop_beyond(&stream, NEWEST)
        {
            oldest.reply().end(Outcome::Expired);
        }
    }

    /// Gives up what is too old at `now_us`, and what nobody waits for.
    pub(crate) fn expire(&mut self, now_us: i64) {
        let keep = |job: &mut W| {
            let expired = job.expires_us().is_some_and(|at| at < now_us);
            if expired {
                job.reply().end(Outcome::Expired);
            }
            !expired && job.reply().is_wanted()
        };
        self.urgent.retain(keep);
        self.calm.retain(keep);
        for current in [&mut self.judging, &mut self.describing] {
            if current.as_mut().is_some_and(|job| !keep(job)) {
                *current = None;
            }
        }
    }

    /// The job that is judged next.
    pub(crate) fn next_to_judge(&mut self) -> Option<W> {
        self.judging.take().or_else(|| self.urgent.pop())
    }

    /// Keeps the turn for a job that is not judged yet.
    pub(crate) fn judge_on(&mut self, job: W) {
        self.judging = Some(job);
    }

    /// The job that is described next.
    pub(crate) fn next_to_describe(&mut self) -> Option<W> {
        self.describing.take().or_else(|| self.calm.pop())
    }

    /// Keeps the turn for a job that is not described yet.
    pub(crate) fn describe_on(&mut self, job: W) {
        self.describing = Some(job);
    }

    /// Jobs that wait to be described, the one that is described last.
    pub(crate) fn described(&mut self) -> impl Iterator<Item = &mut W> {
        self.calm.entries().chain(&mut self.describing)
    }

    /// Jobs that wait to be described, but for the one whose turn it is.
    pub(crate) fn calm(&mut self) -> impl Iterator<Item = &mut W> {
        self.calm.entries()
    }

    /// When the first of those that wait expires.
    pub(crate) fn next_expiry_us(&mut self) -> Option<i64> {
        let at_it = self.judging.iter_mut().chain(&mut self.describing);
        let waiting = self.urgent.entries().chain(self.calm.entries());
        waiting
            .chain(at_it)
            .filter_map(|job| job.expires_us())
            .min()
    }
}
