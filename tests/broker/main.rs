//! Tests on a real Apache Kafka.

mod adapter;
mod exactly_once;
mod fail_points;
mod kafka;
mod leeway;
mod reference;
mod verify;
