//! The binary: everything it does is a subcommand of `cli`.

mod cli;
mod telemetry;

fn main() -> std::process::ExitCode {
    // This program is its own worker for plugins in processes of their own.
    jackfield::worker::run_if_requested();
    cli::main()
}
