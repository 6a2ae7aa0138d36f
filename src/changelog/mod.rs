//! The changelog: what a restore reads, and from where.
//!
//! ```text
//! checkpoint, log range --plan_restore--> from the checkpoint | from the start, with the range dropped
//! changelog records --Restore--> batches, or tables where there is much, up to a progress record --> store
//! ```
//!
//! Invariants: a store that was not restored to the changelog's end is never used; progress and checkpoint move together, in the batch or table
//! that makes them true. Never writes to Kafka.

mod pending;
mod restore;

pub use restore::{Restore, RestorePlan, plan_restore, restore_share};
