//! Which request is made next: as many at a time as the server takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::asking::{Asker, Asking, What};
use super::client::{Length, Slot};
use crate::describe::Reply;
use crate::turns::{Turns, Waits};

impl Waits for Arc<Asking> {
    fn stream(&self) -> &str {
        &self.stream
    }

    fn expires_us(&self) -> Option<i64> {
        self.expires_us
    }

    fn reply(&self) -> &Reply {
        &self.reply
    }

    fn has_questions(&self) -> bool {
        self.left().has_questions()
    }
}

/// Requests under way; one that was the last question of its job returns it.
type UnderWay = JoinSet<Option<Arc<Asking>>>;

/// Asks about jobs as they come, until nobody sends any more: then what is under way is let go of.
pub(super) async fn run(asker: Arc<Asker>, mut jobs: Receiver<Arc<Asking>>) {
    let (mut turns, mut under_way) = (Turns::new(), UnderWay::new());
    loop {
        turns.expire(asker.now_us());
        ask(&asker, &mut turns, &mut under_way);
        let expiry_us = turns.next_expiry_us();
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => turns.add(job),
                None => return,
            },
            Some(asked) = under_way.join_next() => {
                if let Ok(Some(judged)) = asked {
                    turns.add(judged);
                }
            }
            () = passed(&asker, expiry_us) => {}
        }
    }
}

/// Makes as many requests as there is room for: questions first.
fn ask(asker: &Asker, turns: &mut Turns<Arc<Asking>>, under_way: &mut UnderWay) {
    while let Some(slot) = asker.client.try_slot(Length::Short) {
        let Some(job) = turns.next_to_judge() else {
            break;
        };
        if let Some(question) = job.next_question() {
            under_way.spawn(one(Arc::clone(&job), question, slot));
        }
        if job.left().has_questions() {
            turns.judge_on(job);
        }
    }
    while let Some(slot) = asker.client.try_slot(Length::Long) {
        let Some(job) = turns.next_to_describe() else {
            break;
        };
        if let Some(prompt) = job.next_prompt() {
            under_way.spawn(one(Arc::clone(&job), prompt, slot));
        }
        if job.left().has_prompts() {
            turns.describe_on(job);
        }
    }
}

/// Makes a request, for as long as somebody wants its answer. Returns the job when all its questions have theirs, and
/// prompts are left.
async fn one(job: Arc<Asking>, what: What, slot: Slot) -> Option<Arc<Asking>> {
    let is_question = matches!(what, What::Question(..));
    tokio::select! {
        answered = job.ask(what, &slot) => answered.ok()?,
        () = job.is_over() => return None,
    }
    (is_question && job.is_judged() && job.left().has_prompts()).then_some(job)
}

/// Waits until a time of the jobs' clock is over.
pub(super) async fn passed(asker: &Asker, at_us: Option<i64>) {
    let Some(at_us) = at_us else {
        return std::future::pending().await;
    };
    while let Ok(left) = u64::try_from(at_us.saturating_sub(asker.now_us())) {
        sleep(Duration::from_micros(left.saturating_add(1))).await;
    }
}
