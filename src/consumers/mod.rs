//! Consumers of drift events: what shows them to people and passes them on.
//!
//! ```text
//! events topics --follow--> events, in batches --> dashboard: a bounded history, served as a page
//!              |            \-> metrics: what checks say, for Prometheus
//!              \--group---> alert: incidents, messages, channels; its state in a topic of its own
//! ```
//!
//! They read committed events only, and none of them writes to the topics of the stream processor.

pub mod alert;
pub mod dashboard;
pub mod follow;
mod group;
pub mod metrics;
