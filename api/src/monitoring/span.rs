//! From when to when.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use weir_store::{Period, Resolution};

use crate::moment::{self, Moment};
use crate::problem::Problem;

/// From when to when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Span {
    /// The beginning, in RFC 3339. `period` before `to`, or the usual time, if it is not there.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-07-01T00:00:00Z")]
    from: Option<Moment>,
    /// The end, in RFC 3339. Now if it is not there.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-07-02T00:00:00Z")]
    to: Option<Moment>,
    /// How long before `to` it begins: 1 hour, 1, 7 or 30 days. Not beside `from`.
    #[param(inline)]
    period: Option<Length>,
}

/// How long.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Length {
    Hour,
    Day,
    Week,
    Month,
}

impl From<Length> for Duration {
    fn from(length: Length) -> Self {
        match length {
            Length::Hour => Duration::HOUR,
            Length::Day => Duration::DAY,
            Length::Week => Duration::WEEK,
            Length::Month => 30 * Duration::DAY,
        }
    }
}

/// What was counted. It may be a little longer than was asked for: counts are kept by the minute for six hours, by the
/// hour for two weeks, and by the UTC day from then on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpanCounted {
    /// The beginning.
    #[schema(example = "2026-07-01T00:00:00.000000Z", format = DateTime)]
    from: String,
    /// The end, which is not part of it.
    #[schema(example = "2026-07-02T00:00:00.000000Z", format = DateTime)]
    to: String,
    /// To what its ends are rounded: `minute`, `hour` or `day`.
    #[schema(example = "minute")]
    resolution: &'static str,
}

impl Span {
    /// The period of the counts around it.
    pub(super) fn period(&self, usual: Duration) -> Result<Period, Problem> {
        let now = OffsetDateTime::now_utc();
        let to = self.to.map_or(now, |to| to.0);
        let from = match (self.from, self.period) {
            (Some(_), Some(_)) => return Err(Problem::invalid("period", "cannot be given beside `from`")),
            (Some(from), None) => from.0,
            (None, length) => to.saturating_sub(length.map_or(usual, Duration::from)),
        };
        if from >= to {
            return Err(Problem::invalid("from", "is not before `to`, which is now unless it is given"));
        }
        Ok(Period::around(from, to, now))
    }
}

impl From<Period> for SpanCounted {
    fn from(period: Period) -> Self {
        let resolution = match period.resolution {
            Resolution::Minute => "minute",
            Resolution::Hour => "hour",
            Resolution::Day => "day",
        };
        Self { from: moment::text(period.from), to: moment::text(period.to), resolution }
    }
}
