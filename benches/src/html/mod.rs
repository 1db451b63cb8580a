//! A run as one HTML page for people: figures, plots and how they were made.
//!
//! Invariants: *self-contained* (no script, no font, no picture and no style from anywhere else: it opens without a network, and
//! nothing of it leaves the machine), *well-formed* (every element is closed), *escaped* (no text of a document is taken for a tag).

mod plots;
mod svg;

use crate::{
    curve::Plot,
    metric::{Bound, short},
    report::{Report, Row},
};
use plots::Figure;
use std::collections::BTreeSet;
use svg::{escape, push};

const STYLE: &str = include_str!("style.css");

/// The page of a run.
pub fn page(report: &Report) -> String {
    let mut page = String::with_capacity(1 << 18);
    push(
        &mut page,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta name=\"viewport\" content=\"width=device-width\"/>\n\
             <title>cdp-bench, {}</title>\n<style>{STYLE}</style></head>\n<body>\n",
            escape(&report.started)
        ),
    );
    write_head(&mut page, report);
    write_table(&mut page, report);
    write_plots(&mut page, report);
    write_methods(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

/// The plots of a run as pictures of their own, each with a name for its file and its title: bars, curves, and what went on over time.
pub fn pictures(report: &Report) -> Vec<(String, String, String)> {
    let bars = [plots::ratio_bars(report), plots::bound_bars(report)].into_iter().flatten();
    let curves = Plot::ALL.into_iter().filter_map(|plot| plots::curve(report, plot));
    let series =
        |row: &'_ Row| row.findings.series.iter().map(|one| plots::series(row, one)).collect::<Vec<_>>();
    let figures = bars.chain(curves).chain(report.rows.iter().flat_map(series));
    let mut taken = BTreeSet::new();
    let named = |figure: Figure| {
        let words = figure.title().split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let name = words.join("-").to_ascii_lowercase();
        // Of titles that name one file the first is shown.
        taken
            .insert(name.clone())
            .then(|| (format!("{name}.svg"), figure.title().to_owned(), figure.picture(STYLE)))
    };
    figures.filter_map(named).collect()
}

fn write_head(page: &mut String, report: &Report) {
    page.push_str("<h1>cdp-bench</h1>\n");
    if !report.optimised {
        page.push_str(
            "<p class=\"warning\">The harness was built without optimisation: the figures say nothing.</p>\n",
        );
    }
    let unstable = report.rows.iter().filter(|row| !row.stable).count();
    if unstable > 0 {
        push(
            page,
            format_args!(
                "<p class=\"warning\">{unstable} of {} windows stayed unstable: their two probes differ by more than 10 %, so their \
                 figures say little. They are hatched or hollow below.</p>\n",
                report.rows.len()
            ),
        );
    }
    let (machine, place, options) = (&report.machine, &report.file_system, &report.options);
    let busy: Vec<f64> = report.rows.iter().map(|row| row.others).collect();
    let busy = busy.iter().sum::<f64>() / busy.len().max(1) as f64 * 100.0;
    let only =
        if options.only.is_empty() { "all of the profile".to_owned() } else { options.only.join(", ") };
    let mut facts = vec![
        ("begun", format!("{}, took {:.0} s", report.started, report.seconds)),
        ("machine", format!("{} x {}", machine.processors, machine.processor)),
        ("memory", format!("{} MiB", machine.memory_bytes >> 20)),
        ("system", machine.system.clone()),
        ("file system", format!("{} on {} ({})", place.kind, place.device, place.options)),
        (
            "load",
            format!("{} when it began; others used {busy:.0} % of the processors", machine.load_at_start),
        ),
        (
            "harness",
            format!("{}, profile {}, seed {}", report.harness_version, options.profile, options.seed),
        ),
        ("scenarios", only),
    ];
    if let Some(trace) = &options.trace {
        facts.push(("trace", trace.clone()));
    }
    if let Some(device) = &options.device {
        facts.push(("raw device", device.clone()));
    }
    page.push_str("<table class=\"facts\">\n");
    for (name, fact) in facts {
        push(page, format_args!("<tr><th>{name}</th><td>{}</td></tr>\n", escape(&fact)));
    }
    page.push_str("</table>\n");
}

fn write_table(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Figures</h2>\n<div class=\"wide\"><table class=\"rows\">\n<tr><th>scenario</th><th>value</th><th>probe before</th>\
         <th>after</th><th>ratio</th><th>aim</th><th>verdict</th><th>window</th><th>others</th></tr>\n",
    );
    for row in &report.rows {
        write_row(page, row);
    }
    page.push_str("</table></div>\n");
    for skipped in &report.skipped {
        push(
            page,
            format_args!("<p><b>{}</b> left out: {}</p>\n", escape(&skipped.name), escape(&skipped.reason)),
        );
    }
}

fn write_row(page: &mut String, row: &Row) {
    let bound = |bound: Option<Bound>| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
    let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    push(
        page,
        format_args!(
            "<tr class=\"{}\"><td><b>{}</b><br/><small>{}</small></td><td>{} {}</td><td>{} {}</td><td>{}</td><td>{ratio}</td>\
             <td>{}</td><td class=\"verdict\">{}</td><td>{}</td><td>{:.0} %</td></tr>\n",
            plots::class_of(row),
            escape(&row.name),
            escape(&row.title),
            short(row.value),
            row.unit,
            short(row.before),
            row.probe_unit,
            short(row.after),
            escape(&bound(row.aim)),
            row.verdict,
            if row.stable { "stable" } else { "UNSTABLE" },
            row.others * 100.0,
        ),
    );
    let details: Vec<String> =
        row.findings.details.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
    if !details.is_empty() {
        push(
            page,
            format_args!(
                "<tr class=\"details\"><td colspan=\"9\"><details><summary>more, {} tries</summary>{}</details></td></tr>\n",
                row.attempts.len(),
                escape(&details.join(", "))
            ),
        );
    }
}

fn write_plots(page: &mut String, report: &Report) {
    for (title, chart) in [
        ("Ratios and aims", plots::ratio_bars(report)),
        ("Times and rates against their aims", plots::bound_bars(report)),
    ] {
        if let Some(chart) = chart {
            push(page, format_args!("<h2>{title}</h2>\n<div class=\"wide\">{}</div>\n", chart.element()));
        }
    }
    let curves = Plot::ALL.into_iter().filter_map(|plot| plots::curve(report, plot));
    write_figures(page, "Curves", curves);
    let series = report
        .rows
        .iter()
        .flat_map(|row| row.findings.series.iter().map(|series| plots::series(row, series)));
    write_figures(page, "Over time and steps", series);
    write_figures(page, "Latencies", report.rows.iter().filter_map(plots::distribution));
}

fn write_figures(page: &mut String, title: &str, figures: impl Iterator<Item = Figure>) {
    let mut figures = figures.peekable();
    if figures.peek().is_none() {
        return;
    }
    push(page, format_args!("<h2>{title}</h2>\n<div class=\"figures\">\n"));
    page.extend(figures.map(|figure| figure.html()));
    page.push_str("</div>\n");
}

fn write_methods(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Method</h2>\n<p>Each figure was taken between two probes of the same kind; its ratio is to their mean. A window whose \
         probes differ by more than 10 % was repeated as long as there was time, and is else called unstable. Nothing is averaged over \
         tries. <i>others</i> is the share of the processors that other programs and the kernel used meanwhile.</p>\n<ul>\n",
    );
    for (name, method) in &report.probes {
        push(page, format_args!("<li><b>{}</b>: {}</li>\n", escape(name), escape(method)));
    }
    for row in &report.rows {
        if let Some(reference) = &row.findings.reference {
            let (name, text) = (escape(&row.name), escape(reference));
            push(page, format_args!("<li><b>{name}</b> is held against: {text}</li>\n"));
        }
    }
    page.push_str("</ul>\n");
    let mut seen = BTreeSet::new();
    let commands =
        report.rows.iter().flat_map(|row| row.findings.commands.iter().map(move |line| (row, line)));
    let mut commands = commands.filter(|(_, line)| seen.insert(line.as_str())).peekable();
    if commands.peek().is_some() {
        page.push_str("<h2>Commands of other programs</h2>\n<pre>");
        for (row, line) in commands {
            push(page, format_args!("# {}\n{}\n", escape(&row.name), escape(line)));
        }
        page.push_str("</pre>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        curve::{At, Series},
        histogram::Histogram,
        metric::Unit,
        probe::Probe,
        report::{Findings, Meaning, Skipped, fixture},
        window::Attempt,
    };

    /// A run with everything that a page can show, and text that would break it.
    fn full() -> Report {
        let mut report = fixture::report();
        report.machine.processor = "<b>&\"processor\"".into();
        for (number, plot) in Plot::ALL.into_iter().enumerate() {
            for x in [1.0, 1000.0] {
                let curves = Box::leak(Box::new([At { plot, line: "a <line>", x }]));
                let meaning = Meaning {
                    name: "row",
                    title: "a </table> row",
                    unit: Unit::MebibytesPerSecond,
                    probe: Probe::SequentialWrite,
                    probe_unit: Unit::MebibytesPerSecond,
                    aim: Some(if x > 1.0 { Bound::RatioAtLeast(0.8) } else { Bound::AtLeast(5.0) }),
                    floor: None,
                    curves,
                };
                let attempt =
                    Attempt { before: 100.0, value: x + number as f64, after: 100.0 + x, others: 0.1 };
                let findings = Findings {
                    details: [("p50_us", 1.0), ("p99_us", 2.0), ("p999_us", 900.0)]
                        .map(|(name, value)| (name.to_owned(), value))
                        .into(),
                    latencies: Some(Histogram::of_sorted(&[1000, 2000, 5_000_000])),
                    reference_latencies: Some(Histogram::of_sorted(&[500])),
                    reference: Some("a copy < a capture".into()),
                    series: vec![Series::new("over time", "s", "MiB", vec![(0.0, 1.0), (1.0, 5.0)])],
                    commands: vec!["a > b && c".into()],
                };
                report.rows.push(Row::new(&meaning, vec![attempt], 0, findings));
            }
        }
        report.skipped.push(Skipped { name: "other".into(), reason: "not < here".into() });
        report
    }

    /// The tags of a page in order, without what is within them; `Err` where one is not closed or text was not escaped.
    fn check_tags(page: &str) -> Result<usize, String> {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no document type")?;
        let mut count = 0;
        while let Some(at) = rest.find(['<', '>']) {
            let tag = rest[at..].strip_prefix('<').ok_or_else(|| format!("a > in {}", &rest[..at]))?;
            let end = tag.find('>').ok_or("a tag without end")?;
            let (tag, after) = (&tag[..end], &tag[end + 1..]);
            if tag.matches('"').count() % 2 == 1 || tag.contains('<') {
                return Err(format!("a broken tag: {tag}"));
            }
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name) => {
                    return Err(format!("{name} is closed and not open"));
                }
                (false, false) => open.push(name),
                _ => {}
            }
            count += 1;
            rest = after;
        }
        if open.is_empty() { Ok(count) } else { Err(format!("never closed: {open:?}")) }
    }

    /// Goal: the page is well-formed whatever the texts of the run are, and shows every kind of plot.
    /// Method: a run with everything, and one without rows; all tags are closed in order, plots are counted.
    #[test]
    fn pages_are_well_formed_and_show_their_plots() {
        let page = page(&full());
        let tags = check_tags(&page).unwrap_or_else(|error| panic!("{error}"));
        assert!(tags > 500);
        let drawings = page.matches("<svg ").count();
        let rows = 2 * Plot::ALL.len();
        assert_eq!(
            drawings,
            2 + Plot::ALL.len() + 2 * rows,
            "bars, curves, a series and a distribution a row"
        );
        assert!(!page.contains("NaN") && !page.contains("inf "));
        for part in ["a &lt;line&gt;", "a &gt; b &amp;&amp; c", "not &lt; here"] {
            assert!(page.contains(part), "{part}");
        }
        check_tags(&super::page(&fixture::report())).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            check_tags("<!DOCTYPE html><a><b></a>").is_err() && check_tags("<!DOCTYPE html><a>").is_err()
        );
    }

    /// Goal: each plot of the page but the distributions is a picture too, well-formed and with its own name and style. Method: the same run.
    #[test]
    fn pictures_stand_alone() {
        let pictures = pictures(&full());
        // The bars, the curves, and one of the series, which all have one title here.
        assert_eq!(pictures.len(), 2 + Plot::ALL.len() + 1);
        for (name, title, picture) in pictures {
            let stem = name.strip_suffix(".svg").unwrap();
            assert!(
                !stem.is_empty()
                    && stem.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
            );
            check_tags(&format!("<!DOCTYPE html>{picture}"))
                .unwrap_or_else(|error| panic!("{title}: {error}"));
            assert!(
                picture.contains("xmlns=")
                    && picture.contains("<style>")
                    && picture.contains(&escape(&title))
            );
        }
    }

    /// Goal: the page needs nothing but itself.
    /// Method: what could load something or run is not in it.
    #[test]
    fn pages_load_nothing() {
        let page = page(&full());
        for part in
            ["<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "http:", "https:"]
        {
            assert!(!page.contains(part), "{part}");
        }
    }
}
