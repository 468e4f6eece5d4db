//! `tern`: the operator's command line and the service.

use std::process::ExitCode;

fn main() -> ExitCode {
    tern_controller::cli::main()
}
