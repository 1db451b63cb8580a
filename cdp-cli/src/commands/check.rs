//! `cdp check`: verifies every structure of a store.

use crate::{
    args::CheckArguments,
    exit::{Failure, Outcome},
    output::{self, CheckDocument, Table, TailDocument},
    owner,
    progress::Bar,
};
use cdp_core::{Progress, job};

/// Runs the command.
pub fn run(arguments: &CheckArguments) -> Outcome {
    let document = match examine(arguments) {
        Ok(document) => document,
        Err(failure) => {
            // What keeps the store from being opened is what there is to report.
            let Some(damage) = &failure.damage else { return Err(failure) };
            CheckDocument {
                damaged: vec![damage.as_ref().into()],
                tail_cut: TailDocument { frames: 0, bytes: 0 },
            }
        }
    };
    output::result(arguments.output.json, &document, human)?;
    match document.damaged.len() {
        0 => Ok(()),
        1 => Err(Failure::damage("1 damaged range")),
        count => Err(Failure::damage(format!("{count} damaged ranges"))),
    }
}

fn examine(arguments: &CheckArguments) -> Outcome<CheckDocument> {
    let reader = owner::open_reader(&arguments.store)?;
    let bar = Bar::new("check");
    let mut check = reader.store.check_job(arguments.deep)?;
    check.limit_rate(arguments.rate);
    job::run(&mut check, &mut |progress: Progress| bar.show(progress.done, progress.total), &|| false)?;
    let report = check.into_report();
    Ok(CheckDocument {
        damaged: report.damaged.iter().map(Into::into).collect(),
        tail_cut: TailDocument { frames: report.tail_frames, bytes: report.tail_bytes },
    })
}

fn human(check: &CheckDocument) -> String {
    let mut text = String::new();
    if check.damaged.is_empty() {
        text.push_str("no damage\n");
    } else {
        let mut table = Table::new(["damaged file", "offset", "length", "from seq", "to seq", "what"]);
        for damage in &check.damaged {
            table.row([
                damage.file.clone(),
                damage.offset.to_string(),
                damage.length.to_string(),
                damage.from_seq.to_string(),
                damage.to_seq.to_string(),
                damage.what.clone(),
            ]);
        }
        text.push_str(&table.text());
    }
    if check.tail_cut.frames > 0 || check.tail_cut.bytes > 0 {
        text.push_str(&format!(
            "torn tail cut: {} frames, {} bytes\n",
            check.tail_cut.frames, check.tail_cut.bytes
        ));
    }
    text
}
