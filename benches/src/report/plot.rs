//! A plot as inline SVG: lines over a number, or bars over names.

use std::fmt::Write as _;

use serde::Serialize;

use super::html::escape;
use super::shown;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 30.0;
const HEIGHT: f64 = 220.0;
const COLOURS: usize = 8;

/// Some series under one title.
#[derive(Debug, Serialize)]
pub(crate) struct Plot {
    pub(super) part: &'static str,
    pub(super) title: String,
    /// What x and y are.
    pub(super) axes: [&'static str; 2],
    pub(super) series: Vec<Series>,
}

/// One line, or one colour of bars.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    /// Of the bars; empty makes a line.
    labels: Vec<String>,
}

impl Series {
    pub(crate) fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, labels: Vec::new() }
    }

    pub(crate) fn bars(name: impl Into<String>, bars: &[(&str, f64)]) -> Self {
        let points = bars.iter().enumerate().map(|(at, (_, value))| (at as f64, *value)).collect();
        Self { name: name.into(), points, labels: bars.iter().map(|(label, _)| (*label).to_owned()).collect() }
    }
}

impl Plot {
    pub(super) fn write(&self, page: &mut String) {
        let _ = write!(page, "<figure><figcaption>{}</figcaption>", escape(&self.title));
        let _ = write!(
            page,
            "<svg viewBox='0 0 {WIDTH} {}' role=img aria-label='{}'>",
            TOP + HEIGHT + 45.0,
            escape(&self.title)
        );
        let most = nice(self.points().map(|point| point.1).fold(0.0, f64::max));
        self.write_axes(page, most);
        for (index, series) in self.series.iter().enumerate() {
            if series.labels.is_empty() {
                self.write_line(page, series, index, most)
            } else {
                self.write_bars(page, series, index, most)
            }
            let _ = write!(
                page,
                "<rect x={x} y=6 width=10 height=10 fill='var(--s{})'/><text x={} y=15>{}</text>",
                index % COLOURS,
                LEFT + 14.0 + 165.0 * index as f64,
                escape(&series.name),
                x = LEFT + 165.0 * index as f64,
            );
        }
        page.push_str("</svg></figure>");
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| series.points.iter().copied()).filter(|point| point.1.is_finite())
    }

    fn write_axes(&self, page: &mut String, most: f64) {
        for part in 0..=4 {
            let value = most * f64::from(part) / 4.0;
            let y = y_of(value, most);
            let _ = write!(
                page,
                "<path class=grid d='M{LEFT} {y:.1}H{WIDTH}'/><text x={} y={:.1} text-anchor=end>{}</text>",
                LEFT - 6.0,
                y + 4.0,
                shown(value)
            );
        }
        let bottom = TOP + HEIGHT;
        let _ = write!(
            page,
            "<path class=axis d='M{LEFT} {TOP}V{bottom}H{WIDTH}'/><text x={WIDTH} y={} text-anchor=end>{}</text>\
             <text x=0 y=15>{}</text>",
            bottom + 40.0,
            escape(self.axes[0]),
            escape(self.axes[1])
        );
    }

    fn write_line(&self, page: &mut String, series: &Series, index: usize, most: f64) {
        let widest = self.points().map(|point| point.0).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let x_of = |x: f64| LEFT + (WIDTH - LEFT - 20.0) * x / widest;
        let (mut path, mut pen) = (String::new(), 'M');
        for (x, y) in series.points.iter().filter(|point| point.1.is_finite()) {
            let (at, up) = (x_of(*x), y_of(*y, most));
            let _ = write!(path, "{pen}{at:.1} {up:.1}");
            pen = 'L';
            let _ = write!(
                page,
                "<circle cx={at:.1} cy={up:.1} r=3.5 fill='var(--s{})'><title>{}: {}</title></circle>\
                 <text x={at:.1} y={} text-anchor=middle>{}</text>",
                index % COLOURS,
                escape(&series.name),
                shown(*y),
                TOP + HEIGHT + 16.0,
                shown(*x)
            );
        }
        let _ = write!(page, "<path d='{path}' fill=none stroke='var(--s{})' stroke-width=2 />", index % COLOURS);
    }

    fn write_bars(&self, page: &mut String, series: &Series, index: usize, most: f64) {
        let slot = (WIDTH - LEFT) / series.points.len().max(1) as f64;
        let wide = slot * 0.8 / self.series.len() as f64;
        for ((x, y), label) in series.points.iter().zip(&series.labels) {
            let left = LEFT + slot * (x + 0.1) + wide * index as f64;
            if y.is_finite() {
                let up = y_of(*y, most);
                let _ = write!(
                    page,
                    "<rect x={left:.1} y={up:.1} width={:.1} height={:.1} fill='var(--s{})'><title>{}, {}: {}</title></rect>\
                     <text x={:.1} y={:.1} text-anchor=middle>{}</text>",
                    wide * 0.95,
                    TOP + HEIGHT - up,
                    index % COLOURS,
                    escape(&series.name),
                    escape(label),
                    shown(*y),
                    left + wide / 2.0,
                    up - 3.0,
                    shown(*y)
                );
            }
            if index == 0 {
                let _ = write!(
                    page,
                    "<text x={:.1} y={} text-anchor=middle>{}</text>",
                    LEFT + slot * (x + 0.5),
                    TOP + HEIGHT + 16.0,
                    escape(label)
                );
            }
        }
    }
}

fn y_of(value: f64, most: f64) -> f64 {
    TOP + HEIGHT * (1.0 - (value / most).clamp(0.0, 1.0))
}

/// The next of 1, 2, 2.5 and 5 times a power of ten, with room for a number above the highest bar.
fn nice(most: f64) -> f64 {
    if most.is_nan() || most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0, 20.0];
    steps.into_iter().map(|step| step * power).find(|top| *top >= most * 1.07).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_above_the_highest_value() {
        for most in [0.013, 1.0, 7.4, 99.0, 80_000.0] {
            assert!((1.07..3.0).contains(&(nice(most) / most)), "{most}: {}", nice(most));
        }
        assert_eq!(nice(f64::NAN), 1.0);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let series = vec![Series::bars("a", &[("x", f64::NAN), ("y", 2.0)])];
        let mut page = String::new();
        Plot { part: "", title: "t".into(), axes: ["", ""], series }.write(&mut page);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
