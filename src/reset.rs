//! The application reset: an application begins anew, as if it had never run.
//!
//! ```text
//! plan: no members? state directories free? --> group's offsets --> changelogs, panes --> local state
//! ```
//!
//! In this order a reset that was cut off is no half reset: without offsets a worker goes on from the changelog, and the reset can be run again.
//!
//! Not touched: the input, drift events, dead letters, and references unless asked for. Events of the same records are written again afterwards,
//! under the same event ids.

use std::path::PathBuf;
use std::time::Duration;

use leeway_topology::graph::{changelog_topic, global_store_name, repartition_topic, store_name};

use crate::broker::{Broker, BrokerError};
use crate::reference_topic;
use crate::state::directory::{DirectoryError, StateDirectory};

/// One request to the broker.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why an application cannot be reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// Workers are running.
    #[error(
        "application {application_id:?} has active members: {}; stop them first (one that was killed counts until its session ends)",
        members.join(", ")
    )]
    Active {
        /// The application.
        application_id: String,
        /// Their client ids.
        members: Vec<String>,
    },
    /// A state directory is in use or not this application's.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The broker.
    #[error("{doing}: {error}")]
    Broker {
        /// What was asked for.
        doing: String,
        /// What the broker said.
        error: BrokerError,
    },
}

/// What is to be reset.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The application.
    pub application_id: String,
    /// Its input topics.
    pub inputs: Vec<String>,
    /// The published references too.
    pub references: bool,
    /// State directories on this machine.
    pub state_dirs: Vec<PathBuf>,
}

/// One step, in the order in which they are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The group with its committed offsets.
    Group(String),
    /// An internal topic.
    Topic(String),
    /// What is kept in a state directory.
    Directory(PathBuf),
}

/// What there is to reset, after a look at everything that speaks against it. Holds the locks of the state directories.
pub struct Plan {
    steps: Vec<Step>,
    directories: Vec<StateDirectory>,
}

fn asking(doing: &str) -> impl FnOnce(BrokerError) -> ResetError {
    let doing = doing.to_owned();
    move |error| ResetError::Broker { doing, error }
}

/// Finds what there is to reset; deletes nothing.
///
/// # Errors
/// When workers are running, a directory is in use or another application's, or the broker does not answer.
pub fn plan<B: Broker>(broker: &B, scope: &Scope) -> Result<Plan, ResetError> {
    let application_id = &scope.application_id;
    let members = broker
        .group_members(application_id, TIMEOUT)
        .map_err(asking("asking for the group's members"))?;
    if !members.is_empty() {
        return Err(ResetError::Active {
            application_id: application_id.clone(),
            members,
        });
    }
    let mut directories = Vec::new();
    for path in &scope.state_dirs {
        directories.push(StateDirectory::open(path, application_id)?);
    }
    let mut steps = vec![Step::Group(application_id.clone())];
    // Those of scope `global` too, whether it is asked for now or was once.
    let internal = scope.inputs.iter().flat_map(|input| {
        [
            changelog_topic(application_id, &store_name(input)),
            repartition_topic(application_id, input),
            changelog_topic(application_id, &global_store_name(input)),
        ]
    });
    let references = scope.references.then(|| reference_topic::topic_name(application_id));
    for topic in internal.chain(references) {
        if broker.describe_topic(&topic, TIMEOUT).map_err(asking(&topic))?.is_some() {
            steps.push(Step::Topic(topic));
        }
    }
    steps.extend(directories.iter().map(|directory| Step::Directory(directory.path().to_owned())));
    Ok(Plan { steps, directories })
}

impl Plan {
    /// The steps, in their order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Takes the steps, and tells each that is done. `false`: it was not there any more.
    ///
    /// # Errors
    /// At the first step that fails: what comes after it is as before, and the reset can be run again. A worker that joined meanwhile makes the
    /// first step fail.
    pub fn execute<B: Broker>(self, broker: &B, mut told: impl FnMut(&Step, bool)) -> Result<(), ResetError> {
        let mut directories = self.directories.into_iter();
        for step in &self.steps {
            let was_there = match step {
                Step::Group(group) => broker
                    .delete_group(group, TIMEOUT)
                    .map_err(asking(&format!("deleting group {group:?}")))?,
                Step::Topic(topic) => broker
                    .delete_topic(topic, TIMEOUT)
                    .map_err(asking(&format!("deleting topic {topic:?}")))?,
                Step::Directory(_) => match directories.next() {
                    Some(directory) => {
                        directory.clear()?;
                        true
                    }
                    None => false,
                },
            };
            told(step, was_there);
        }
        Ok(())
    }
}
