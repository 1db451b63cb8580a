//! `cdp`, the operator's tool.
//!
//! Layout: [`args`] reads the command line, [`commands`] has a file for each command, [`owner`] finds whoever owns a store
//! and lets it make changes, [`fuse`] serves a mounted store, [`output`] prints, [`exit`] decides the exit code.

mod args;
mod commands;
mod exit;
mod fuse;
mod image;
mod interrupt;
mod output;
mod owner;
mod progress;

use args::{Arguments, Command};
use clap::Parser;
use exit::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::diagnostic(&format!("cdp: {}", failure.message));
            }
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Create(arguments) => commands::create::run(&arguments),
        Command::Volume(command) => commands::volume::run(&command),
        Command::Mount(arguments) => commands::mount::run(&arguments),
        Command::Bookmark(command) => commands::bookmark::run(&command),
        Command::Points(arguments) => commands::points::run(&arguments),
        Command::Restore(arguments) => commands::restore::run(&arguments),
        Command::Diff(arguments) => commands::diff::run(&arguments),
        Command::Replay(arguments) => commands::replay::run(arguments),
        Command::Resync(arguments) => commands::resync::run(arguments),
        Command::Verify(arguments) => commands::verify::run(arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        Command::Import(arguments) => commands::import::run(&arguments),
        Command::Retention(command) => commands::retention::run(&command),
        Command::Size(arguments) => commands::size::run(&arguments),
        Command::Mirror(command) => commands::mirror::run(&command),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Scrub(arguments) => commands::scrub::run(arguments),
        Command::Stat(arguments) => commands::stat::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
    }
}
