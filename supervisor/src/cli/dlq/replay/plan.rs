//! What a replay would do.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use weir_core::queue::Queue;

use super::pace::Rate;
use crate::cli::Output;
use crate::cli::dlq::filter::Selection;
use crate::cli::dlq::groups::{self, Group, Groups};
use crate::cli::dlq::place::Place;
use crate::cli::dlq::scan::Order;
use crate::output;

/// Letters shown as a sample.
const SAMPLE: usize = 5;

/// Ages by which letters are counted, and what they are called.
const AGES: [(&str, u64); 5] = [
    ("under 10 min", 600),
    ("under 1 h", 3600),
    ("under 6 h", 21_600),
    ("under 1 day", 86_400),
    ("under 7 days", 604_800),
];
const OLDER: &str = "older";

/// Everything that the filters select at this moment.
#[derive(Debug)]
pub(super) struct Plan {
    groups: Groups,
    ages: [u64; 6],
    sample: Vec<Sample>,
}

#[derive(Debug, Serialize)]
struct Sample {
    place: String,
    source: String,
    external_message_id: String,
    error: String,
}

#[derive(Debug, Serialize)]
struct Age {
    age: &'static str,
    count: u64,
}

/// The plan for programs.
#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    count: u64,
    duration_s: Option<f64>,
    groups: Vec<Group>,
    ages: Vec<Age>,
    sample: Vec<Sample>,
}

impl Plan {
    pub(super) async fn make(queue: &Queue, selection: &Selection) -> Result<Self> {
        let mut plan = Self { groups: Groups::default(), ages: [0; 6], sample: Vec::new() };
        let mut scan = selection.scan(queue, Order::OldestFirst);
        while let Some(letter) = scan.next().await? {
            plan.groups.add(&letter);
            plan.ages[age_class(selection.now_ms.saturating_sub(letter.died_ms()))] += 1;
            if plan.sample.len() < SAMPLE {
                plan.sample.push(Sample {
                    place: Place::of(&letter).to_string(),
                    source: letter.source,
                    external_message_id: letter.external_message_id,
                    error: letter.error,
                });
            }
        }
        Ok(plan)
    }

    pub(super) fn count(&self) -> u64 {
        self.groups.total()
    }

    pub(super) fn print(self, form: Output, rate: Rate) {
        let count = self.count();
        let duration = rate.time_for(count);
        let names = AGES.map(|(name, _)| name).into_iter().chain([OLDER]);
        let report = Report {
            dry_run: true,
            count,
            duration_s: duration.map(|duration| duration.as_secs_f64()),
            groups: self.groups.sorted(),
            ages: names.zip(self.ages).map(|(age, count)| Age { age, count }).collect(),
            sample: self.sample,
        };
        match form {
            Output::Json => output::json(&report),
            Output::Table => report.print(rate, duration),
        }
    }
}

impl Report {
    fn print(&self, rate: Rate, duration: Option<Duration>) {
        let time = duration.map_or(String::new(), |time| format!(", which takes {}", output::span(time)));
        output::line(format_args!("dry run: {} letters would be replayed {rate}{time}", self.count));
        if self.count == 0 {
            return;
        }
        output::line("\nwhat they died of");
        groups::print(&self.groups);
        output::line("\nhow long they are dead");
        let largest = self.ages.iter().map(|age| age.count).max().unwrap_or_default().max(1);
        for age in &self.ages {
            let bar = "#".repeat((30 * age.count).div_ceil(largest) as usize);
            output::line(format_args!("{:12}  {:>8}  {bar}", age.age, age.count).to_string().trim_end());
        }
        output::line("\nthe first of them");
        output::rows(Output::Table, &["place", "source", "external id", "error"], &self.sample, |sample| {
            let Sample { place, source, external_message_id: id, error } = sample;
            vec![place.clone(), source.clone(), id.clone(), crate::cli::dlq::render::shorten(error, 60)]
        });
    }
}

fn age_class(age_ms: u64) -> usize {
    AGES.iter().position(|(_, seconds)| age_ms < 1000 * seconds).unwrap_or(AGES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_counted_once() {
        assert_eq!([0, 599_999, 600_000, 604_799_999, 604_800_000].map(age_class), [0, 0, 1, 4, 5]);
    }
}
