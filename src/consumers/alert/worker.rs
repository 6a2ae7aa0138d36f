//! A channel on a thread of its own, which does one thing at a time: so a channel that hangs holds up nobody else.

use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::channels::Channel;
use super::message::Message;
use super::outbox::{Due, Outcome};

/// What a worker is asked for.
enum Job {
    Deliver(Due),
    Refresh(Vec<Message>),
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// Of which channel, by its place in the configuration.
    pub channel: usize,
    /// The entry's id; `None`: of a refresh.
    pub id: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Where workers tell of their ends.
pub struct Reports {
    sender: Sender<Done>,
    receiver: Receiver<Done>,
}

impl Default for Reports {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }
}

impl Reports {
    /// The next one, if there is one.
    pub fn next(&self) -> Option<Done> {
        self.receiver.try_recv().ok()
    }
}

/// A channel's thread. When it is dropped the thread ends after what it does.
pub struct Worker {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
    /// The id of the entry that it has, or nothing for a refresh; `None`: it is idle.
    busy: Option<Option<String>>,
    refresh_every: Option<Duration>,
    refreshed: Option<Duration>,
}

impl Worker {
    /// Starts a channel's thread. `refresh_every`: how often what is open is told again.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        channel: usize,
        name: &str,
        mut sink: Box<dyn Channel>,
        refresh_every: Option<Duration>,
        reports: &Reports,
    ) -> std::io::Result<Self> {
        let (jobs, work) = sync_channel::<Job>(1);
        let done = reports.sender.clone();
        let run = move || {
            while let Ok(job) = work.recv() {
                let (id, outcome) = match job {
                    Job::Deliver(due) => (Some(due.id), sink.deliver(&due.payload)),
                    Job::Refresh(open) => (None, sink.refresh(&open)),
                };
                if done.send(Done { channel, id, outcome }).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("alert-{name}")).spawn(run)?;
        Ok(Self {
            jobs,
            thread,
            busy: None,
            refresh_every,
            refreshed: None,
        })
    }

    /// Whether it can be given something.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.busy.is_none()
    }

    /// Whether its thread has ended, which it never does by itself.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.thread.is_finished()
    }

    /// The id of the entry that it has.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        self.busy.as_ref()?.as_deref()
    }

    /// Delivers an entry.
    pub fn deliver(&mut self, due: Due) {
        let id = due.id.clone();
        if self.send(Job::Deliver(due)) {
            self.busy = Some(Some(id));
        }
    }

    /// Whether what is open is to be told again now.
    #[must_use]
    pub fn is_refresh_due(&self, now: Duration) -> bool {
        self.is_idle()
            && self
                .refresh_every
                .is_some_and(|every| self.refreshed.is_none_or(|refreshed| now >= refreshed.saturating_add(every)))
    }

    /// Whether what is open is ever told again.
    #[must_use]
    pub fn is_refreshing(&self) -> bool {
        self.refresh_every.is_some()
    }

    /// Tells of everything that is open.
    pub fn refresh(&mut self, open: Vec<Message>, now: Duration) {
        self.refreshed = Some(now);
        if !open.is_empty() && self.send(Job::Refresh(open)) {
            self.busy = Some(None);
        }
    }

    /// What it did is done.
    pub fn done(&mut self) {
        self.busy = None;
    }

    fn send(&self, job: Job) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            // It is idle, so there is room; and a thread that is gone is found by `is_dead`.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}
