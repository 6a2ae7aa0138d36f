//! Tests on a real Apache Kafka.

mod exactly_once;
mod kafka;
mod leeway;
mod verify;
