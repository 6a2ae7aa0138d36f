//! The dataflow of Leeway: from a record's bytes to drift events.
//!
//! ```text
//! value --json--> fields --binning--> observations --pane--> window --metrics, significance--> drift events
//!                    \--> rejected: a dead letter                \--> puts: the state's changed keys
//! ```
//!
//! Everything here is a function of its arguments: no Kafka, no RocksDB, no clock, no thread, no file. A [`processor::Processor`] reads its
//! state through [`state::ReadStore`] and returns what is to be written; the runtime commits it.

pub mod batch;
pub mod binning;
pub mod codec;
pub mod decoder;
pub mod drift;
pub mod event;
pub mod event_time;
pub mod field;
pub mod graph;
pub mod histogram;
pub mod ids;
pub mod json;
pub mod metric;
pub mod processor;
pub mod psi;
pub mod quality;
pub mod record;
pub mod reference;
pub mod repartition;
pub mod significance;
pub mod state;
pub mod test_driver;
pub mod window;
