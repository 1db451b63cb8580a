//! Axes and shapes of the plots, as text. Pure.
//!
//! Colours are classes, which the style sheet of the page defines, so that plots follow a light and a dark screen. Every shape that
//! has a figure says it in a `title`, which browsers show at the pointer: there is no script.

use crate::metric::short;
use std::fmt::Write;

/// Colours that lines can have; more lines begin anew.
const COLOURS: usize = 6;

/// An axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// A logarithmic axis that holds these values, with whole powers of ten at its ends; values that are not positive are left out.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let (low, mut high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
        if high <= low {
            high = low * 10.0;
        }
        Self { low, high, logarithmic: true }
    }

    /// An axis from zero that holds these values.
    pub fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let (_, high) = ends(values).unwrap_or((0.0, 1.0));
        let high = if high > 0.0 { high * 1.05 } else { 1.0 };
        Self { low: 0.0, high, logarithmic: false }
    }

    /// Logarithmic where the values span more than a factor of `span`, else from zero.
    pub fn fitting(values: impl Iterator<Item = f64> + Clone, span: f64) -> Self {
        match ends(values.clone()) {
            Some((low, high)) if low > 0.0 && high / low > span => Self::logarithmic(values),
            _ => Self::from_zero(values),
        }
    }

    /// Where a value lies, from 0 to 1; values beyond an end lie at it.
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Values to be named, ascending: about four to eight.
    pub fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round();
            let steps: &[f64] = if decades <= 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let every = if decades > 8.0 { 100.0 } else { 10.0 };
            let mut power = self.low;
            while power <= self.high * 1.001 {
                ticks.extend(steps.iter().map(|step| step * power).filter(|tick| *tick <= self.high * 1.001));
                power *= every;
            }
        } else {
            let rough = (self.high - self.low) / 5.0;
            let power = 10f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            let mut tick = self.low;
            while tick <= self.high {
                ticks.push(tick);
                tick += step;
            }
        }
        ticks
    }
}

fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite());
    finite.fold(None, |ends, value| match ends {
        None => Some((value, value)),
        Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
    })
}

/// Text as it may stand between and within tags.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A drawing with axes.
pub struct Drawing {
    title: String,
    text: String,
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    inner_width: f64,
    inner_height: f64,
    x: Axis,
    y: Axis,
}

/// Size of a drawing, and what its axes show.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Width, in the units of the drawing.
    pub width: f64,
    /// Height, in the units of the drawing.
    pub height: f64,
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// Horizontal axis.
    pub x: &'a str,
    /// Vertical axis.
    pub y: &'a str,
}

impl Drawing {
    /// Begins with axes and a grid.
    pub fn new(labels: Labels<'_>, x: Axis, y: Axis) -> Self {
        let (left, right, top, bottom) = (64.0, 14.0, 12.0, 42.0);
        let mut drawing = Self {
            title: labels.title.to_owned(),
            text: String::new(),
            width: labels.width,
            height: labels.height,
            left,
            top,
            inner_width: labels.width - left - right,
            inner_height: labels.height - top - bottom,
            x,
            y,
        };
        let (right, bottom) = (left + drawing.inner_width, top + drawing.inner_height);
        for tick in x.ticks() {
            let at = drawing.x_of(tick);
            drawing.line("grid", (at, top), (at, bottom));
            drawing.label("tick", (at, bottom + 14.0), "middle", &tick_text(tick));
        }
        for tick in y.ticks() {
            let at = drawing.y_of(tick);
            drawing.line("grid", (left, at), (right, at));
            drawing.label("tick", (left - 5.0, at + 3.5), "end", &tick_text(tick));
        }
        drawing.label("axis", (f64::midpoint(left, right), labels.height - 8.0), "middle", labels.x);
        let (at_x, at_y) = (13.0, f64::midpoint(top, bottom));
        push(
            &mut drawing.text,
            format_args!(
                "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate({at_x:.1} {at_y:.1}) rotate(-90)\">{}</text>",
                escape(labels.y)
            ),
        );
        drawing
    }

    fn x_of(&self, value: f64) -> f64 {
        self.left + self.inner_width * self.x.place(value)
    }

    fn y_of(&self, value: f64) -> f64 {
        self.top + self.inner_height * (1.0 - self.y.place(value))
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        push(
            &mut self.text,
            format_args!(
                "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
                from.0, from.1, to.0, to.1
            ),
        );
    }

    fn label(&mut self, class: &str, at: (f64, f64), anchor: &str, text: &str) {
        push(
            &mut self.text,
            format_args!(
                "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                at.0,
                at.1,
                escape(text)
            ),
        );
    }

    /// A line through points.
    pub fn path(&mut self, colour: usize, points: &[(f64, f64)]) {
        let places: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x_of(*x), self.y_of(*y))).collect();
        push(
            &mut self.text,
            format_args!("<polyline class=\"line c{}\" points=\"{}\"/>", colour % COLOURS, places.join(" ")),
        );
    }

    /// A point with a whisker from `low` to `high`; hollow where its figure says little.
    pub fn point(
        &mut self,
        colour: usize,
        at: (f64, f64),
        (low, high): (f64, f64),
        hollow: bool,
        said: &str,
    ) {
        let (x, y, colour) = (self.x_of(at.0), self.y_of(at.1), colour % COLOURS);
        let (from, to) = ((x, self.y_of(low)), (x, self.y_of(high)));
        self.line(&format!("whisker c{colour}"), from, to);
        let class = if hollow { "hollow" } else { "dot" };
        push(
            &mut self.text,
            format_args!(
                "<circle class=\"{class} c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"><title>{}</title></circle>",
                escape(said)
            ),
        );
    }

    /// What it shows.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The drawing as a part of a page, which has the style.
    pub fn element(&self) -> String {
        let (width, height) = (self.width, self.height);
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\"><title>{}</title>{}</svg>\n",
            escape(&self.title),
            self.text
        )
    }

    /// The drawing as a picture of its own: with its title, the names of its lines and `style`.
    pub fn picture(&self, names: &[String], style: &str) -> String {
        const LINE: f64 = 18.0;
        let mut keys = String::new();
        let (mut x, mut y) = (0.0, 2.0 * LINE);
        for (colour, name) in names.iter().enumerate() {
            // About as wide as the letters are.
            let width = 28.0 + 6.2 * name.chars().count() as f64;
            if x > 0.0 && x + width > self.width {
                (x, y) = (0.0, y + LINE);
            }
            push(
                &mut keys,
                format_args!(
                    "<circle class=\"dot c{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                    colour % COLOURS,
                    x + 8.0,
                    y - 4.0,
                    x + 16.0,
                    escape(name)
                ),
            );
            x += width;
        }
        let head = if names.is_empty() { 1.5 * LINE } else { y + LINE / 2.0 };
        let (width, height, title) = (self.width, self.height + head, escape(&self.title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\">\
             <title>{title}</title><style>{style}</style><rect class=\"paper\" width=\"100%\" height=\"100%\"/>\
             <text class=\"title\" x=\"4\" y=\"{LINE:.0}\">{title}</text>{keys}<g transform=\"translate(0 {head:.0})\">{}</g></svg>\n",
            self.text
        )
    }
}

/// A bar of a chart of bars.
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// What stands at its end.
    pub text: String,
    /// A mark to be reached.
    pub aim: Option<f64>,
    /// Class of its colour.
    pub class: &'static str,
    /// What a pointer at it shows.
    pub said: String,
}

/// Horizontal bars, one below the other, on one axis. `unit`: what the axis shows.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> Drawing {
    const ROW: f64 = 22.0;
    let values = || bars.iter().flat_map(|bar| bar.aim.into_iter().chain([bar.value]));
    let axis = Axis::fitting(values(), 20.0);
    let (left, inner, top) = (250.0, 480.0, 6.0);
    let bottom = top + ROW * bars.len() as f64;
    let mut drawing = Drawing {
        title: title.to_owned(),
        text: String::new(),
        width: left + inner + 90.0,
        height: bottom + 38.0,
        left,
        top,
        inner_width: inner,
        inner_height: bottom - top,
        x: axis,
        y: axis,
    };
    for tick in axis.ticks() {
        let at = drawing.x_of(tick);
        drawing.line("grid", (at, top), (at, bottom));
        drawing.label("tick", (at, bottom + 14.0), "middle", &tick_text(tick));
    }
    drawing.label("axis", (left + inner / 2.0, bottom + 31.0), "middle", unit);
    for (row, bar) in bars.iter().enumerate() {
        let y = top + ROW * row as f64;
        let end = drawing.x_of(bar.value);
        drawing.label("name", (left - 8.0, y + 15.0), "end", &bar.name);
        push(
            &mut drawing.text,
            format_args!(
                "<rect class=\"{}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\"><title>{}</title></rect>",
                bar.class,
                y + 4.0,
                (end - left).max(1.0),
                escape(&bar.said)
            ),
        );
        let aim = bar.aim.map(|aim| drawing.x_of(aim));
        let text_at = aim.unwrap_or(end).max(end) + 6.0;
        drawing.label("name", (text_at, y + 15.0), "start", &bar.text);
        if let Some(at) = aim {
            drawing.line("aim", (at, y + 1.0), (at, y + 21.0));
        }
    }
    drawing
}

/// Names of lines in their colours.
pub fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::from("<p class=\"legend\">");
    for (colour, name) in names.enumerate() {
        push(&mut text, format_args!("<span class=\"key c{}\"></span>{} ", colour % COLOURS, escape(name)));
    }
    text.push_str("</p>\n");
    text
}

fn tick_text(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-2..1e4).contains(&size) => format!("{value:.0e}"),
        _ => {
            let text = short(value);
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
    }
}

/// Appends; writing to text cannot fail.
pub fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: places lie between 0 and 1 and ascend with the value, on every kind of axis, also beyond its ends and for rubbish.
    /// Method: axes over a range of values; values within, beyond, zero, negative, not numbers.
    #[test]
    fn places_ascend_and_stay_on_the_axis() {
        let values = [0.5, 3.0, 800.0];
        let axes = [
            Axis::logarithmic(values.into_iter()),
            Axis::from_zero(values.into_iter()),
            Axis::from_zero([].into_iter()),
            Axis::logarithmic([0.0, -1.0].into_iter()),
            Axis::logarithmic([7.0].into_iter()),
        ];
        for axis in axes {
            let at = |value| axis.place(value);
            assert!(at(-1.0) <= at(0.0) && at(0.0) <= at(0.5) && at(0.5) <= at(3.0) && at(3.0) <= at(1e9));
            for value in [-1.0, 0.0, 1e300, f64::NAN, f64::INFINITY] {
                assert!((0.0..=1.0).contains(&at(value)), "{value} on {axis:?}");
            }
            let ticks = axis.ticks();
            assert!((2..=12).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks.is_sorted());
        }
        assert!(Axis::fitting(values.into_iter(), 20.0).logarithmic);
        assert!(!Axis::fitting(values.into_iter(), 1e6).logarithmic);
    }

    /// Goal: no text can leave its place in the page.
    /// Method: letters that mean something to a browser.
    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"x\">&\n"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }
}
