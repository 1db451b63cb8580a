//! `cdp retention show` and `set`.

use crate::{
    args::{RetentionCommand, RetentionSetArguments, StoreArguments},
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output,
    owner::{self, Request},
};
use cdp_core::{limits::POLICY_BYTES_MAX, retention::Policy};
use std::{fs::File, io::Read, path::Path};

/// Runs the command.
pub fn run(command: &RetentionCommand) -> Outcome {
    match command {
        RetentionCommand::Show(arguments) => show(arguments),
        RetentionCommand::Set(arguments) => set(arguments),
    }
}

fn show(arguments: &StoreArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    print(&reader.store.policy()?, arguments.output.json)?;
    reader.finish()
}

fn set(arguments: &RetentionSetArguments) -> Outcome {
    let policy = read_policy(&arguments.policy)?;
    let request = Request::SetPolicy { policy: policy.to_json() };
    owner::change(&arguments.store, &request, "retention", &Interrupt::default())?;
    print(&policy, arguments.output.json)
}

/// Reads a policy from a file, TOML or JSON.
///
/// # Errors
/// `Failed` with the field and the reason.
pub fn read_policy(path: &Path) -> Outcome<Policy> {
    let failed = |source: std::io::Error| Failure::io("read", path, &source);
    let mut text = String::new();
    // One byte more than is allowed tells a text that is too long from one at the bound.
    let most = u64::try_from(POLICY_BYTES_MAX).map_or(u64::MAX, |bytes| bytes + 1);
    File::open(path).map_err(failed)?.take(most).read_to_string(&mut text).map_err(failed)?;
    Policy::from_text(&text).map_err(|error| Failure::from(error).context(path.display()))
}

fn print(policy: &Policy, json: bool) -> Outcome {
    if json {
        return output::print(&format!("{}\n", policy.to_json()));
    }
    if policy.keeps_everything() {
        return output::print("everything is kept\n");
    }
    output::print(&policy.to_toml())
}
