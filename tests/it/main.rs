//! The runtime on the embedded broker, single-threaded, on a clock that only the tests move.

mod audit;
mod puppet;
mod rules;
mod world;
