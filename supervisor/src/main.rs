//! The binary: nothing but the library's entrance.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::main()
}
