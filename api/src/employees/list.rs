use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_store::{EmployeeFilter, NameSource};

use super::dto::{self, EmployeeBody};
use crate::api::App;
use crate::extract::{Json, Query};
use crate::page::{self, Limit};
use crate::problem::Problem;
use crate::profiles::UserId;

/// Which employees, and which page. All that is given must hold.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Those with this phone; write its + as %2B.
    #[param(pattern = r"^\+[1-9][0-9]{6,14}$", example = "+1234567890")]
    phone: Option<String>,
    /// Those with this user id at MAX.
    #[param(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    max_id: Option<String>,
    /// Those of this university.
    #[param(minimum = 1)]
    university_id: Option<i64>,
    /// Those whose name comes from there.
    #[param(inline)]
    profile_source: Option<EmployeeSource>,
    /// `next` of the page before; empty for the first.
    cursor: Option<String>,
    /// Employees on a page, 1 to 500.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
}

/// From where the name of an employee comes.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum EmployeeSource {
    /// From a request.
    Manual,
    /// From the user.
    UserInput,
    /// From MAX.
    Webhook,
    /// There is none.
    Default,
}

impl From<EmployeeSource> for NameSource {
    fn from(source: EmployeeSource) -> Self {
        match source {
            EmployeeSource::Manual => Self::Manual,
            EmployeeSource::UserInput => Self::UserInput,
            EmployeeSource::Webhook => Self::Webhook,
            EmployeeSource::Default => Self::Default,
        }
    }
}

/// Employees in the order of their numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = EmployeePage)]
pub(super) struct ListPage {
    items: Vec<EmployeeBody>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// Employees
///
/// In the order of their numbers.
#[utoipa::path(get, path = "/employees", params(ListQuery), responses(
    (status = 200, description = "a page of employees", body = ListPage, example = json!({"items": [{
        "id": 1, "phone": "+1234567890", "max_id": "12345", "first_name": "Иван", "last_name": "Петров",
        "university_id": 1, "profile_source": "webhook", "profile_last_updated": "2026-07-01T12:00:00.000000Z",
        "created_at": "2026-07-01T12:00:01.000000Z", "updated_at": "2026-07-01T12:00:01.000000Z"
    }], "next": null})),
))]
pub(super) async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Json<ListPage>, Problem> {
    let behind = page::decode("cursor", query.cursor.as_deref())?.unwrap_or_default();
    let invalid = |fault| Problem::Invalid { faults: vec![fault] };
    // In a query a bare + is a blank.
    let phone = query.phone.map(|phone| dto::phone(&phone.replacen(' ', "+", usize::from(phone.starts_with(' ')))));
    let max_id = query.max_id.map(|id| UserId::parse(&id)).transpose();
    let filter = EmployeeFilter {
        phone: phone.transpose().map_err(invalid)?,
        max_id: max_id.map_err(|reason| Problem::invalid("max_id", reason))?.map(UserId::into_string),
        university_id: dto::university(query.university_id).map_err(invalid)?,
        profile_source: query.profile_source.map(NameSource::from),
    };
    let mut found = app.store.list_employees(&filter, behind, query.limit.and_one()).await?;
    let next = query.limit.cut(&mut found).map(|employee| page::encode(&employee.id));
    Ok(Json(ListPage { items: found.into_iter().map(EmployeeBody::from).collect(), next }))
}
