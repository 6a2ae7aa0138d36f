//! Every state that a changelog partition ever showed, kept before compaction takes the older ones away.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use leeway::broker::Broker;
use leeway::state::store::TaskRange;
use leeway_topology::state::progress_key;

use crate::world::World;

/// The changelog of the input's windows.
pub(crate) const CHANGELOG: &str = "app-windows-in-changelog";

/// The changelog of the whole topic's windows.
pub(crate) const GLOBAL_CHANGELOG: &str = "app-global-in-changelog";

/// The changelog of a store.
fn changelog(store: &str) -> String {
    format!("app-{store}-changelog")
}

/// Keys and values of a task.
pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// One changelog partition, as far as it was read.
#[derive(Default)]
pub(crate) struct History {
    next: i64,
    now: State,
    /// By the bytes of the progress record that made the state whole.
    whole: BTreeMap<Vec<u8>, State>,
}

impl History {
    /// Reads on what a read-committed reader may see, in the changelogs of all tasks.
    pub(crate) fn follow(histories: &mut BTreeMap<TaskRange, Self>, world: &World) {
        let stores: BTreeSet<_> = histories.keys().map(|task| task.store.clone()).collect();
        for store in stores {
            let read = world.broker.read_topic(&changelog(&store), Duration::ZERO, &mut |of, record| {
                let task = TaskRange {
                    store: store.clone(),
                    partition: of.partition,
                };
                let history = histories.entry(task).or_default();
                if record.offset.0 >= history.next {
                    history.next = record.offset.0 + 1;
                    let key = record.key.expect("a key").to_vec();
                    let is_progress = key == progress_key();
                    match record.value {
                        Some(value) => history.now.insert(key, value.to_vec()),
                        None => history.now.remove(&key),
                    };
                    if is_progress && let Some(progress) = record.value {
                        history.whole.insert(progress.to_vec(), history.now.clone());
                    }
                }
                ControlFlow::Continue(())
            });
            read.expect("the changelog");
        }
    }

    /// The state at a progress record.
    pub(crate) fn at(&self, progress: &[u8]) -> Option<&State> {
        self.whole.get(progress)
    }

    /// The last state.
    pub(crate) fn last(&self) -> &State {
        &self.now
    }
}
