//! Leeway: drift events of machine-learning features, exactly once, from a Kafka topic. The runtime; the dataflow is `leeway_topology`.
//!
//! `docs/architecture.md` has the picture; start reading at [`stream_thread`].

pub mod broker;
pub mod state;
