//! Leeway: drift events of machine-learning features, exactly once, from a Kafka topic. The runtime; the dataflow is `leeway_topology`.
//!
//! `docs/architecture.md` has the picture; start reading at [`stream_thread`].

pub mod audit;
pub mod broker;
pub mod changelog;
pub mod check;
pub mod cli;
pub mod config;
pub mod consumers;
pub mod epoch;
pub mod http;
pub mod memory;
pub mod mutation;
pub mod reference_topic;
pub mod reset;
pub mod rolling_reference;
pub mod run;
pub mod runtime;
pub mod source;
pub mod standby;
pub mod state;
pub mod stream_thread;
pub mod task;
pub mod telemetry;
pub mod topics;
