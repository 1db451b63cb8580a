//! The table of a run in a document: it replaces what lies between two marks, so that the figures of a document come from a run and
//! from nowhere else. Pure.

use crate::{
    error::{Error, Result},
    metric::{Bound, short},
    report::{Report, Row},
};
use std::fmt::Write;

/// The line before the table.
pub const BEGIN: &str = "<!-- cdp-bench: begin -->";
/// The line after the table.
pub const END: &str = "<!-- cdp-bench: end -->";

/// `document` with the table of a run between its marks, beside its figures those of `earlier` runs, and below it pictures by title and path.
///
/// # Errors
/// `Usage` when it does not have each mark once, in order.
pub fn fill(
    document: &str,
    report: &Report,
    earlier: &[Report],
    pictures: &[(String, String)],
) -> Result<String> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        let alone = !after.contains(BEGIN) && !after.contains(END) && !before.contains(END);
        alone.then_some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| {
        Error::Usage(format!(
            "the document needs the lines '{BEGIN}' and '{END}', once each, around the table"
        ))
    })?;
    let shown = |(title, path): &(String, String)| format!("\n![{}]({path})\n", cell(title));
    let pictures: String = pictures.iter().map(shown).collect();
    Ok(format!("{before}{BEGIN}\n{}{pictures}{END}{after}", table(report, earlier)))
}

/// Text as it may stand in a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn table(report: &Report, earlier: &[Report]) -> String {
    let mut text = String::new();
    // Writing to text cannot fail.
    let _ = write_table(&mut text, report, earlier);
    text
}

/// The figure of a row in short: the ratio where there is one, else the value; with a mark where its window was unstable.
fn figure(row: &Row) -> String {
    let figure = match row.ratio {
        Some(ratio) => format!("{ratio:.2}"),
        None => format!("{} {}", short(row.value), row.unit),
    };
    if row.stable { figure } else { format!("~{figure}") }
}

/// The figures of earlier runs of the same scenario.
fn earlier_figures(name: &str, earlier: &[Report]) -> String {
    let of = |report: &Report| report.rows.iter().find(|row| row.name == name).map_or("-".to_owned(), figure);
    earlier.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn write_table(text: &mut String, report: &Report, earlier: &[Report]) -> std::fmt::Result {
    let (machine, place) = (&report.machine, &report.file_system);
    let unstable = report.rows.iter().filter(|row| !row.stable).count();
    let others = report.rows.iter().map(|row| row.others).sum::<f64>() / report.rows.len().max(1) as f64;
    writeln!(
        text,
        "Profile {}, {}, {:.0} s. {} x {}, {} MiB of memory, {}; {}. Load {} when it began; other programs and the kernel used {:.0} % \
         of the processors meanwhile. {unstable} of {} windows stayed unstable.{}\n",
        report.options.profile,
        report.started,
        report.seconds,
        machine.processors,
        cell(&machine.processor),
        machine.memory_bytes >> 20,
        cell(&machine.system),
        cell(report.options.device.as_ref().unwrap_or(&place.kind)),
        machine.load_at_start,
        others * 100.0,
        report.rows.len(),
        if report.optimised { "" } else { " NOT OPTIMISED: the figures say nothing." },
    )?;
    let (head, rule) = if earlier.is_empty() { ("", "") } else { (" earlier |", "---|") };
    if !earlier.is_empty() {
        let began = |run: &Report| format!("{} (load {})", run.started, run.machine.load_at_start);
        let began: Vec<String> = earlier.iter().map(began).collect();
        writeln!(text, "Earlier runs: {}. `~`: the window was unstable.\n", began.join("; "))?;
    }
    writeln!(
        text,
        "| scenario | value | probe | ratio | aim | verdict | window |{head}\n|---|---|---|---|---|---|---|{rule}"
    )?;
    for row in &report.rows {
        let aim = row.aim.map_or_else(|| "-".to_owned(), |aim: Bound| aim.to_string());
        let before = match earlier {
            [] => String::new(),
            _ => format!(" {} |", cell(&earlier_figures(&row.name, earlier))),
        };
        writeln!(
            text,
            "| `{}` | {} {} | {} {} | {} | {} | {} | {} |{before}",
            cell(&row.name),
            short(row.value),
            row.unit,
            short(row.raw()),
            row.probe_unit,
            row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            cell(&aim),
            row.verdict,
            if row.stable { "stable" } else { "unstable" },
        )?;
    }
    for skipped in &report.skipped {
        writeln!(text, "\n`{}` was left out: {}.", cell(&skipped.name), cell(&skipped.reason))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{Findings, Skipped, fixture},
        scenario::SCENARIOS,
        window::Attempt,
    };

    /// Goal: what lies between the marks is replaced, and nothing else; doing it again changes nothing.
    /// Method: a document with text on all sides.
    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let mut report = fixture::report();
        report.skipped.push(Skipped { name: "a|b".into(), reason: "not here".into() });
        let filled = fill(&format!("before\n{BEGIN}\nold\n{END}\nafter\n"), &report, &[], &[]).unwrap();
        assert!(filled.starts_with(&format!("before\n{BEGIN}\nProfile smoke")), "{filled}");
        assert!(filled.ends_with(&format!("{END}\nafter\n")) && !filled.contains("old"));
        assert!(filled.contains("`a\\|b` was left out: not here."));
        assert_eq!(fill(&filled, &report, &[], &[]).unwrap(), filled);
        assert!(!filled.contains("Earlier runs"));
        let pictures = [("one".to_owned(), "plots/one.svg".to_owned())];
        let shown = fill(&filled, &report, &[], &pictures).unwrap();
        assert!(shown.contains(&format!("\n\n![one](plots/one.svg)\n{END}")), "{shown}");
    }

    /// Goal: the figures of earlier runs stand beside those of the run they belong to, unstable ones marked, missing ones said. Method: two earlier
    /// runs, one with another figure and an unstable window, one without the row.
    #[test]
    fn earlier_runs_stand_beside_the_latest() {
        let without = fixture::report();
        let with = |probe_after: f64| {
            let attempt = Attempt { before: 100.0, value: 90.0, after: probe_after, others: 0.0 };
            let mut report = fixture::report();
            report.rows.push(Row::new(&SCENARIOS[0].meaning, vec![attempt], 0, Findings::default()));
            report
        };
        let filled = fill(&format!("{BEGIN}{END}"), &with(100.0), &[with(200.0), without], &[]).unwrap();
        let name = SCENARIOS[0].meaning.name;
        let row = filled.lines().find(|line| line.contains(&format!("`{name}`"))).unwrap();
        assert!(row.contains("| 0.90 |") && row.ends_with("| ~0.60, - |"), "{row}");
        let columns = |line: &str| line.matches('|').count();
        assert!(
            filled.lines().filter(|line| line.starts_with('|')).all(|line| columns(line) == 9),
            "{filled}"
        );
    }

    /// Goal: a document that is not made for it is refused.
    /// Method: a mark missing, in the wrong order, twice.
    #[test]
    fn documents_without_marks_are_refused() {
        let report = fixture::report();
        for bad in ["".into(), BEGIN.into(), format!("{END}{BEGIN}"), format!("{BEGIN}{END}{BEGIN}{END}")] {
            assert!(matches!(fill(&bad, &report, &[], &[]), Err(Error::Usage(_))), "{bad}");
        }
    }
}
