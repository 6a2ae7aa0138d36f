//! Tests on a real Apache Kafka.

mod adapter;
mod alert;
mod chaos;
mod cluster;
mod dashboard;
mod exactly_once;
mod fail_points;
mod global;
mod kafka;
mod leeway;
mod membership;
mod metrics;
mod outage;
mod proxy;
mod quality;
mod receiver;
mod reference;
mod run;
mod segments;
mod time_windows;
mod verify;
