use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_store::{NameSource, ProfileFilter, ProfilePlace};

use super::ProfileBody;
use crate::api::App;
use crate::extract::{Json, Query};
use crate::moment::{self, Moment};
use crate::page::{self, Limit};
use crate::problem::Problem;

/// Characters of a searched text at most.
const LONGEST: usize = 256;

/// Which profiles, and which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// A user id, or a part of a name in any case, whose signs count as blanks. One or two characters are a whole word of a name.
    #[param(max_length = 256, pattern = r"^[^\u0000]*$", example = "петров")]
    query: Option<String>,
    /// Only those of this source.
    #[param(inline)]
    source: Option<ProfileSource>,
    /// Only those that changed after this moment.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-07-01T00:00:00Z")]
    updated_after: Option<Moment>,
    /// `next` of the page before; empty for the first.
    cursor: Option<String>,
    /// Profiles on a page, 1 to 500.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
}

/// Which name of a profile counts.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProfileSource {
    /// The one that the user gave.
    UserInput,
    /// MAX's.
    Webhook,
    /// There is none.
    Default,
}

impl From<ProfileSource> for NameSource {
    fn from(source: ProfileSource) -> Self {
        match source {
            ProfileSource::UserInput => Self::UserInput,
            ProfileSource::Webhook => Self::Webhook,
            ProfileSource::Default => Self::Default,
        }
    }
}

/// Profiles in the order of their last change.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfilePage)]
pub(super) struct SearchPage {
    items: Vec<ProfileBody>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// Search profiles
///
/// In the order of their last change, so that `updated_after` with the `last_updated` of the last profile that you have
/// gives what has changed since. A profile that changes while you turn pages comes again at the end.
#[utoipa::path(get, path = "/profiles", params(SearchQuery), responses(
    (status = 200, description = "a page of profiles", body = SearchPage, example = json!({"items": [{
        "user_id": "12345", "display_name": "Иван Петров", "max_first_name": "Иван", "max_last_name": "Петров",
        "user_provided_name": "", "has_full_name": true, "source": "webhook",
        "last_updated": "2026-07-01T12:00:00.000000Z"
    }], "next": null})),
))]
pub(super) async fn search(
    State(app): State<App>,
    Query(query): Query<SearchQuery>,
) -> Result<Json<SearchPage>, Problem> {
    let start = query.updated_after.map_or_else(ProfilePlace::start, |after| ProfilePlace::after(after.0));
    let behind = match place(query.cursor.as_deref())? {
        Some(place) => later(start, place),
        None => start,
    };
    let text = query.query.map(|text| text.trim().to_owned());
    if text.as_ref().is_some_and(|text| text.chars().count() > LONGEST || text.contains('\0')) {
        return Err(Problem::invalid("query", format!("has more than {LONGEST} characters, or holds NUL")));
    }
    let filter = ProfileFilter { text, source: query.source.map(NameSource::from) };
    let mut found = app.store.search_profiles(&filter, &behind, query.limit.and_one()).await?;
    let next = query.limit.cut(&mut found);
    let next = next.map(|profile| page::encode(&(moment::micros(profile.last_updated), &profile.user_id)));
    Ok(Json(SearchPage { items: found.into_iter().map(ProfileBody::from).collect(), next }))
}

fn place(cursor: Option<&str>) -> Result<Option<ProfilePlace>, Problem> {
    let Some((micros, user_id)) = page::decode::<(i64, String)>("cursor", cursor)? else { return Ok(None) };
    match moment::of_micros(micros) {
        Some(last_updated) if !user_id.contains('\0') => Ok(Some(ProfilePlace { last_updated, user_id })),
        _ => Err(page::no_cursor("cursor")),
    }
}

fn later(one: ProfilePlace, other: ProfilePlace) -> ProfilePlace {
    if (one.last_updated, &one.user_id) > (other.last_updated, &other.user_id) { one } else { other }
}
