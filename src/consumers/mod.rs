//! Consumers of drift events: what shows them to people and passes them on.
//!
//! ```text
//! events topics --follow--> events, in batches --> dashboard: a bounded history, served as a page
//! ```
//!
//! They read committed events only, without a group, and never write to Kafka. What they keep is in memory, bounded, and rebuilt from the topic at
//! each start.

pub mod dashboard;
pub mod follow;
