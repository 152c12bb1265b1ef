//! The binary: everything it does is a subcommand of `cli`.

mod cli;
mod telemetry;

fn main() -> std::process::ExitCode {
    cli::main()
}
