//! `leeway alert`: tells people and programs when drift and violated quality begin, get worse, and end.
//!
//! ```text
//! drift-events --route--> incident --> message --> <group>-state --> worker --> Slack | webhook | Alertmanager | CSV | standard output
//! ```
//!
//! At least once, with a key by which a receiver knows what it has already; exactly once in the ordinary course. `docs/alerts.md` has the meanings.
//!
//! | module | job |
//! | --- | --- |
//! | [`route`] | which events a channel hears of |
//! | [`incident`] | when it is told: the life of an incident, pure |
//! | [`identity`] | whose incident an event is of |
//! | [`message`], [`text`] | what is told, and in which words |
//! | [`outbox`] | what waits for a channel, and when it is tried again, pure |
//! | [`state`] | what is kept in Kafka |
//! | [`channels`], [`worker`] | the places that alerts go to, each on its own thread |
//! | [`thread`] | the loop that drives all of them |
//! | [`metrics`] | counters and gauges |

pub mod channels;
pub mod identity;
pub mod incident;
pub mod message;
pub mod metrics;
pub mod outbox;
pub mod route;
pub mod state;
pub mod text;
pub mod thread;
pub mod worker;
