//! Between what we know and what the definitions say.

use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::{Code, Status};
use weir_store::{NameSource, Names, Profile};

use super::proto;
use crate::problem::Problem;

pub(super) fn profile(profile: Profile) -> proto::Profile {
    of_names(profile.user_id, profile.names, profile.last_updated)
}

pub(super) fn of_names(user_id: String, names: Names, last_updated: OffsetDateTime) -> proto::Profile {
    let source = match names.source() {
        NameSource::UserInput => proto::NameSource::UserInput,
        NameSource::Webhook => proto::NameSource::Webhook,
        NameSource::Default | NameSource::Manual => proto::NameSource::Default,
    };
    proto::Profile {
        user_id,
        display_name: names.display_name(),
        has_full_name: names.is_full(),
        source: source.into(),
        last_updated: Some(timestamp(last_updated)),
        max_first_name: names.max_first_name,
        max_last_name: names.max_last_name,
        user_provided_name: names.user_provided_name,
    }
}

fn timestamp(at: OffsetDateTime) -> Timestamp {
    // Below a thousand million.
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or_default() }
}

/// A problem as callers of gRPC know them.
pub(super) fn status(problem: &Problem) -> Status {
    let code = match problem {
        Problem::Malformed { .. } | Problem::Invalid { .. } | Problem::MediaType => Code::InvalidArgument,
        Problem::Unauthorized { .. } => Code::Unauthenticated,
        Problem::Forbidden { .. } => Code::PermissionDenied,
        Problem::NoPath | Problem::NotFound { .. } => Code::NotFound,
        Problem::Method => Code::Unimplemented,
        Problem::TooLarge { .. } => Code::ResourceExhausted,
        Problem::Timeout => Code::DeadlineExceeded,
        Problem::Unavailable { .. } => Code::Unavailable,
        Problem::Internal => Code::Internal,
    };
    Status::new(code, problem.sentence())
}
