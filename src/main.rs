//! The `leeway` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    leeway::cli::main()
}
