//! `cdp retention`: the policy, what it would do, and doing it.

use crate::{
    args::{RetentionCommand, RetentionNowArguments, RetentionSetArguments, StoreArguments},
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output,
    output::RetentionDocument,
    owner::{self, Reply, Request},
};
use cdp_core::{
    io::{Clock, SystemClock},
    limits::POLICY_BYTES_MAX,
    retention::Policy,
    units::TimeNs,
};
use std::{fmt::Write, fs::File, io::Read, path::Path};

/// Runs the command.
pub fn run(command: &RetentionCommand) -> Outcome {
    match command {
        RetentionCommand::Show(arguments) => show(arguments),
        RetentionCommand::Set(arguments) => set(arguments),
        RetentionCommand::Preview(arguments) => preview(arguments),
        RetentionCommand::Run(arguments) => run_now(arguments),
    }
}

fn show(arguments: &StoreArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    print(&reader.store.policy()?, arguments.output.json)?;
    reader.finish()
}

fn set(arguments: &RetentionSetArguments) -> Outcome {
    let policy = read_policy(&arguments.policy)?;
    record(&arguments.store, &policy)?;
    print(&policy, arguments.output.json)
}

fn preview(arguments: &RetentionNowArguments) -> Outcome {
    let policy = arguments.policy.as_deref().map(read_policy).transpose()?;
    let reader = owner::open_reader(&arguments.store)?;
    let now = arguments.now.unwrap_or_else(|| SystemClock.now());
    let report = reader.store.preview_retention(now, policy.as_ref())?;
    output::result(arguments.output.json, &RetentionDocument::from(&report), |report| {
        human(report, "would be")
    })?;
    reader.finish()
}

fn run_now(arguments: &RetentionNowArguments) -> Outcome {
    if let Some(path) = &arguments.policy {
        record(&arguments.store, &read_policy(path)?)?;
    }
    let request = Request::RunRetention { now_ns: arguments.now.map(TimeNs::get) };
    match owner::change(&arguments.store, &request, "retention", &Interrupt::default())? {
        Reply::Retention(report) => {
            output::result(arguments.output.json, &report, |report| human(report, "were"))
        }
        _ => Ok(()),
    }
}

fn record(store: &Path, policy: &Policy) -> Outcome {
    let request = Request::SetPolicy { policy: policy.to_json() };
    owner::change(store, &request, "retention", &Interrupt::default()).map(|_| ())
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

fn human(report: &RetentionDocument, verb: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "points that {verb} dropped  {}", report.drop_points);
    let _ = writeln!(text, "points that stay            {}", report.keep_points);
    let _ = writeln!(text, "bytes that {verb} freed     {}", output::human_size(report.bytes_freed));
    let _ = writeln!(text, "every state from            {}", report.horizon);
    for name in &report.expiring_bookmarks {
        let _ = writeln!(text, "bookmark dropped            {name}");
    }
    text
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
