//! How good what is known of users is: how complete, how old, from where, and how that changed.

use axum::extract::State;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use time::{Date, Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use weir_store::ProfileDay;

use super::{BySource, enabled, percentage, switched_off};
use crate::api::App;
use crate::extract::{Json, Query};
use crate::problem::{Problem, ProblemBody};

/// Days of the trend unless the caller asks for another number, and at most.
const USUAL_DAYS: u16 = 30;
const MOST_DAYS: u16 = 365;

/// The oldest bucket of the freshness that has an end.
const OLDEST_BUCKET: i64 = 90;

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Days of the trend, today included: 1 to 365.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 365, default = 30, example = 30)]
    days: Days,
}

#[derive(Debug, Clone, Copy)]
struct Days(u16);

impl Default for Days {
    fn default() -> Self {
        Self(USUAL_DAYS)
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // From a query everything is text.
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let days = text.parse().ok().filter(|days| digits && (1..=MOST_DAYS).contains(days));
        days.map(Self).ok_or_else(|| D::Error::custom(format!("is no number from 1 to {MOST_DAYS}")))
    }
}

/// How good what is known of users is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Quality {
    /// Every user id that was ever seen.
    #[schema(example = 10000)]
    total_profiles: i64,
    completeness: Completeness,
    freshness: Freshness,
    source_distribution: Sources,
    /// One item for each day, the oldest first; the last one is today, so far.
    trend: Vec<Day>,
}

/// How complete the names are.
#[derive(Debug, Serialize, ToSchema)]
struct Completeness {
    /// Profiles with a name of any kind.
    #[schema(example = 8500)]
    with_name: i64,
    /// Those with a full name.
    #[schema(example = 7200)]
    with_full_name: i64,
    /// Those without any name.
    #[schema(example = 1500)]
    without_name: i64,
    /// `with_name`, of a hundred profiles.
    #[schema(example = 85.0)]
    name_percentage: f64,
    /// `with_full_name`, of a hundred profiles.
    #[schema(example = 72.0)]
    full_name_percentage: f64,
}

/// All profiles, by the UTC day of their last change. Each is in one of these.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
struct Freshness {
    /// Today.
    #[schema(example = 300)]
    today: i64,
    /// The six days before.
    #[schema(example = 1200)]
    last_7_days: i64,
    /// The 23 days before those.
    #[schema(example = 2500)]
    last_30_days: i64,
    /// The 60 days before those.
    #[schema(example = 3000)]
    last_90_days: i64,
    /// Before.
    #[schema(example = 3000)]
    older: i64,
}

/// All profiles, by what gave the name that counts.
#[derive(Debug, Serialize, ToSchema)]
struct Sources {
    /// MAX.
    webhook: Share,
    /// The user told it.
    user_input: Share,
    /// There is no name.
    default: Share,
}

/// A part of all profiles.
#[derive(Debug, Serialize, ToSchema)]
struct Share {
    /// How many.
    #[schema(example = 6900)]
    count: i64,
    /// Of a hundred.
    #[schema(example = 69.0)]
    percentage: f64,
}

/// How it was at the end of a UTC day.
#[derive(Debug, Serialize, ToSchema)]
struct Day {
    /// The day.
    #[schema(example = "2026-07-01", format = Date)]
    date: String,
    /// Every user id that had been seen.
    #[schema(example = 10000)]
    total_users: i64,
    /// Those that were seen first on this day.
    #[schema(example = 120)]
    new_users: i64,
    /// Those with a name of any kind.
    #[schema(example = 8500)]
    users_with_profiles: i64,
    /// Those with a full name.
    #[schema(example = 7200)]
    users_with_full_names: i64,
    /// `users_with_profiles` of `total_users`, of a hundred.
    #[schema(example = 85.0)]
    coverage_percentage: f64,
}

/// How complete and how old profiles are, from where their names come, and how that changed.
#[utoipa::path(get, path = "/monitoring/profiles/quality", params(Which), responses(
    (status = 200, description = "the quality", body = Quality, example = json!({
        "total_profiles": 10000,
        "completeness": {"with_name": 8500, "with_full_name": 7200, "without_name": 1500,
                         "name_percentage": 85.0, "full_name_percentage": 72.0},
        "freshness": {"today": 300, "last_7_days": 1200, "last_30_days": 2500, "last_90_days": 3000, "older": 3000},
        "source_distribution": {"webhook": {"count": 6900, "percentage": 69.0},
                                "user_input": {"count": 1600, "percentage": 16.0},
                                "default": {"count": 1500, "percentage": 15.0}},
        "trend": [{"date": "2026-07-01", "total_users": 10000, "new_users": 120, "users_with_profiles": 8500,
                   "users_with_full_names": 7200, "coverage_percentage": 85.0}],
    })),
    (status = 404, description = "the monitoring is switched off", body = ProblemBody, example = json!(switched_off())),
))]
pub(super) async fn quality(State(app): State<App>, Query(which): Query<Which>) -> Result<Json<Quality>, Problem> {
    enabled(&app)?;
    let today = OffsetDateTime::now_utc().date();
    // One day more than is shown: what is new on a day is the difference to the one before.
    let days = i64::from(which.days.0).max(OLDEST_BUCKET) + 1;
    let first = today.checked_sub(Duration::days(days - 1)).unwrap_or(Date::MIN);
    let days = app.store.profile_days(first, today).await?;
    Ok(Json(describe(&days, usize::from(which.days.0))))
}

/// `days` end with today and are one more than the trend has, or more.
fn describe(days: &[ProfileDay], shown: usize) -> Quality {
    let counts = days.last().map(|day| day.counts.clone()).unwrap_or_default();
    let by_source = BySource::of(&counts);
    let share = |count| Share { count, percentage: percentage(count, counts.users) };
    Quality {
        total_profiles: counts.users,
        completeness: Completeness {
            with_name: counts.named,
            with_full_name: counts.full,
            without_name: counts.users - counts.named,
            name_percentage: percentage(counts.named, counts.users),
            full_name_percentage: percentage(counts.full, counts.users),
        },
        freshness: freshness(days, counts.users),
        source_distribution: Sources {
            webhook: share(by_source.webhook),
            user_input: share(by_source.user_input),
            default: share(by_source.default),
        },
        trend: days
            .windows(2)
            .skip((days.len() - 1).saturating_sub(shown))
            .map(|pair| day(&pair[0], &pair[1]))
            .collect(),
    }
}

fn freshness(days: &[ProfileDay], users: i64) -> Freshness {
    let mut buckets = Freshness::default();
    for (age, day) in days.iter().rev().take(OLDEST_BUCKET as usize).enumerate() {
        let bucket = match age {
            0 => &mut buckets.today,
            1..7 => &mut buckets.last_7_days,
            7..30 => &mut buckets.last_30_days,
            _ => &mut buckets.last_90_days,
        };
        *bucket += day.last_changed;
    }
    let young = buckets.today + buckets.last_7_days + buckets.last_30_days + buckets.last_90_days;
    Freshness { older: users - young, ..buckets }
}

fn day(before: &ProfileDay, day: &ProfileDay) -> Day {
    let counts = &day.counts;
    Day {
        date: day.day.to_string(),
        total_users: counts.users,
        new_users: counts.users - before.counts.users,
        users_with_profiles: counts.named,
        users_with_full_names: counts.full,
        coverage_percentage: percentage(counts.named, counts.users),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;
    use weir_store::ProfileCounts;

    use super::*;

    /// Ten users more a day, of which five have a name; two profiles were last changed on each day.
    fn days(number: i64) -> Vec<ProfileDay> {
        let day = |n: i64| ProfileDay {
            day: date!(2026 - 06 - 30) - Duration::days(number - 1 - n),
            counts: ProfileCounts { users: (n + 1) * 10, named: (n + 1) * 5, full: n, ..ProfileCounts::default() },
            last_changed: 2,
        };
        (0..number).map(day).collect()
    }

    #[test]
    fn every_profile_is_in_one_bucket_of_the_freshness() {
        let found = freshness(&days(91), 910);
        let expected = Freshness { today: 2, last_7_days: 12, last_30_days: 46, last_90_days: 120, older: 730 };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_trend_has_the_days_that_were_asked_for_and_ends_with_today() {
        let quality = describe(&days(91), 3);
        let dates: Vec<_> = quality.trend.iter().map(|day| day.date.as_str()).collect();
        assert_eq!(dates, ["2026-06-28", "2026-06-29", "2026-06-30"]);
        assert!(quality.trend.iter().all(|day| day.new_users == 10 && day.coverage_percentage == 50.0));
        assert_eq!(describe(&days(91), 90).trend.len(), 90);
    }
}
