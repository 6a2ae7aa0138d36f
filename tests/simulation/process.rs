//! A process of a run: its disk, and its threads, each between two steps or in the middle of one.

use std::collections::BTreeMap;
use std::time::Duration;

use leeway::broker::memory::MemoryClient;
use leeway::standby::StandbyThread;
use leeway::stream_thread::StreamThread;

use crate::disk::Disk;
use crate::mid_step::MidStep;

/// A process: its disk, and its threads while it lives.
pub(crate) struct Process {
    pub(crate) disk: Disk,
    pub(crate) threads: Vec<Seat>,
    /// Every fourth one has copies of the others' tasks.
    pub(crate) standby: Option<StandbyThread<MemoryClient>>,
    pub(crate) stopping: bool,
    /// By thread; the last one is the standby's.
    pub(crate) asleep_until: Vec<Duration>,
}

/// A stream thread of a process.
pub(crate) enum Seat {
    Between(Box<StreamThread<MemoryClient>>),
    Within(MidStep),
    /// Only while it is moved from one to the other.
    Empty,
}

/// What became of a process in a turn.
pub(crate) enum Fate {
    Alive,
    Gone,
    Stopped,
}

impl Process {
    /// As SIGTERM.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for seat in &mut self.threads {
            // One within a step is told after it.
            if let Seat::Between(thread) = seat {
                thread.stop();
            }
        }
    }

    fn between(&self) -> impl Iterator<Item = &StreamThread<MemoryClient>> {
        self.threads.iter().filter_map(|seat| match seat {
            Seat::Between(thread) => Some(&**thread),
            Seat::Within(_) | Seat::Empty => None,
        })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.between().filter(|thread| thread.is_ready()).count() == self.threads.len()
    }

    pub(crate) fn states(&self) -> Vec<BTreeMap<&'static str, usize>> {
        self.between().map(StreamThread::task_states).collect()
    }
}

impl Seat {
    /// As SIGKILL.
    pub(crate) fn kill(self) {
        if let Self::Within(step) = self {
            step.kill();
        }
    }

    pub(crate) fn close(self) {
        if let Self::Between(thread) = self {
            thread.close(Duration::ZERO);
        }
    }
}
