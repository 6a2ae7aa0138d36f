//! A stream thread that is in the middle of a step while everybody else goes on: SIGSTOP within a commit.
//!
//! Such a step runs on a thread of the system, and stops at one of its fail points until it is woken. One of the two runs at any time, the
//! simulation or the step, so that a seed stays one run.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use leeway::broker::memory::MemoryClient;
use leeway::stream_thread::{FailPoint, Now, Step, StreamThread, ThreadError};

type Thread = Box<StreamThread<MemoryClient>>;

/// What became of a step; the error is a panic's.
pub(crate) type Outcome = std::thread::Result<Result<Step, ThreadError>>;

/// The payload of a panic that stands for SIGKILL.
pub(crate) struct Killed;

/// A step that has begun.
pub(crate) enum Begun {
    /// It passed no fail point, or not the one at which it would have stopped.
    Over(Thread, Outcome),
    /// It stands at this fail point.
    Within(MidStep, FailPoint),
}

/// A step that stands at a fail point.
pub(crate) struct MidStep {
    thread: JoinHandle<(Thread, Outcome)>,
    goes_on: Sender<bool>,
}

/// In the thread of a step: where to stop.
struct Stop {
    /// Fail points that it passes before.
    passes: u32,
    reached: Sender<FailPoint>,
    goes_on: Receiver<bool>,
}

thread_local! {
    static STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// Begins a step that is to stop at its first fail point after so many others.
pub(crate) fn begin(mut thread: Thread, now: Now, passes: u32) -> Begun {
    let ((reached, stands), (goes_on, wait)) = (channel(), channel());
    let stop = Stop {
        passes,
        reached,
        goes_on: wait,
    };
    #[cfg(feature = "mutations")]
    let mutation = leeway::mutation::current();
    let step = move || {
        STOP.set(Some(stop));
        let outcome = catch_unwind(AssertUnwindSafe(|| thread.step(now)));
        // If it is still there: says that the step is over.
        STOP.take();
        (thread, outcome)
    };
    #[cfg(feature = "mutations")]
    let step = move || match mutation {
        Some(mutation) => leeway::mutation::with(mutation, step),
        None => step(),
    };
    let thread = std::thread::spawn(step);
    match stands.recv() {
        Ok(point) => Begun::Within(MidStep { thread, goes_on }, point),
        Err(_) => over(thread),
    }
}

impl MidStep {
    /// The rest of the step.
    pub(crate) fn wake(self) -> (Thread, Outcome) {
        self.end(true)
    }

    /// As SIGKILL.
    pub(crate) fn kill(self) {
        drop(self.end(false));
    }

    fn end(self, lives: bool) -> (Thread, Outcome) {
        self.goes_on.send(lives).expect("it waits");
        self.thread.join().expect("panics are caught")
    }
}

fn over(thread: JoinHandle<(Thread, Outcome)>) -> Begun {
    let (thread, outcome) = thread.join().expect("panics are caught");
    Begun::Over(thread, outcome)
}

/// Called at each fail point: stands still where a step on its own thread has to. Says whether this was the place.
pub(crate) fn stand(point: FailPoint) -> bool {
    let due = STOP.with_borrow_mut(|stop| match stop {
        Some(Stop { passes: 0, .. }) => stop.take(),
        Some(stop) => {
            stop.passes -= 1;
            None
        }
        None => None,
    });
    let Some(stop) = due else { return false };
    stop.reached.send(point).expect("the simulation waits");
    if !stop.goes_on.recv().expect("the simulation tells") {
        std::panic::panic_any(Killed);
    }
    true
}
