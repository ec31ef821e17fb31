//! Figures that are found turn by turn: several sides take turns, because the speed of a shared machine drifts.

use crate::report::{Report, shown};

/// What was found so far, in the order in which it first came.
#[derive(Default)]
pub(super) struct Turns {
    figures: Vec<(String, String, &'static str, Vec<f64>)>,
}

impl Turns {
    /// One turn of the figure of this id.
    pub(super) fn push(&mut self, id: impl Into<String>, name: impl Into<String>, unit: &'static str, value: f64) {
        let id = id.into();
        match self.figures.iter_mut().find(|figure| figure.0 == id) {
            Some(figure) => figure.3.push(value),
            None => self.figures.push((id, name.into(), unit, vec![value])),
        }
    }

    /// The last turn of a figure.
    pub(super) fn last(&self, id: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.0 == id)?.3.last().copied()
    }

    /// Notes everything, sorted by what belongs together.
    pub(super) fn write(self, report: &mut Report) {
        for (id, name, unit, turns) in self.figures {
            report.put(id, name, unit, turns);
        }
    }
}

/// What durability costs, as the part `accept` found it at saturation: to be read with every figure of accept.
pub(super) fn read_with_durability(report: &mut Report, ids: impl IntoIterator<Item = String>) {
    let rate = |side: &str| report.found(&format!("accept.256.{side}.rate")).map(|figure| figure.value);
    let (Some(disk), Some(memory)) = (rate("disk"), rate("memory")) else { return };
    let text = format!("durable ÷ memory {} (part accept)", shown(disk / memory));
    for id in ids {
        report.beside(&id, &text);
    }
}
