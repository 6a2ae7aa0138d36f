//! The runtime on the embedded broker. Single-threaded, on a clock that only the tests move, but for the supervisor, which is about threads.

mod audit;
mod browser;
mod check;
mod global;
#[cfg(feature = "rocksdb")]
mod inspect;
mod puppet;
mod reset;
mod rules;
mod segments;
mod standby;
mod supervisor;
mod world;
