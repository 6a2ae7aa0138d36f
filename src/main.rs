//! The `leeway` binary.

use std::process::ExitCode;

/// Of librdkafka and RocksDB too, which call `malloc`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    leeway::cli::main()
}
