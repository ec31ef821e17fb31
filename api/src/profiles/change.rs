//! Names that callers give.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use weir_store::{Cause, ProfileChange};

use super::dto::given;
use super::{ProfileBody, UserId, check_name};
use crate::api::App;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Fault, Problem};

/// The three names. What is left out stays; null or an empty text takes the name away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProfileNames, min_properties = 1)]
pub(super) struct NamesBody {
    /// Instead of MAX's. The next event that tells the name replaces it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Иван")]
    max_first_name: Option<Option<String>>,
    /// Instead of MAX's. The next event that tells the name replaces it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Петров")]
    max_last_name: Option<Option<String>>,
    /// The name that counts before MAX's. No event touches it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Иван Сергеевич Петров")]
    user_provided_name: Option<Option<String>>,
}

/// Change a profile's names
///
/// What is left out stays; null or an empty text takes the name away. Which name counts then (`source`) follows from the
/// names. A user id that was never seen gets a profile.
#[utoipa::path(put, path = "/profiles/{user_id}",
    params(("user_id" = String, pattern = "^[A-Za-z0-9._@-]{1,64}$", description = "the provider's id", example = "12345")),
    request_body(content = NamesBody, example = json!({"user_provided_name": "Иван Сергеевич Петров", "max_last_name": null})),
    responses(
        (status = 200, description = "the profile after it", body = ProfileBody, example = json!({
            "user_id": "12345", "display_name": "Иван Сергеевич Петров", "max_first_name": "Иван",
            "max_last_name": "", "user_provided_name": "Иван Сергеевич Петров", "has_full_name": true,
            "source": "user_input", "last_updated": "2026-07-01T12:00:00.000000Z"
        })),
    ))]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<String>,
    Json(names): Json<NamesBody>,
) -> Result<Json<ProfileBody>, Problem> {
    let user_id = UserId::of_path(&user_id)?;
    let change = changes(user_id, &caller, names.max_first_name, names.max_last_name, names.user_provided_name)
        .map_err(|faults| Problem::Invalid { faults })?;
    apply(&app, change).await.map(Json)
}

/// A name that somebody gives themselves.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GivenName)]
pub(super) struct NameBody {
    /// What they want to be called. Not empty; `PUT` takes a name away.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        example = "Анна Ким"
    )]
    name: String,
}

/// Keep the name that a user gave
///
/// It counts before MAX's name from then on. A user id that was never seen gets a profile.
#[utoipa::path(post, path = "/profiles/{user_id}/name",
    params(("user_id" = String, pattern = "^[A-Za-z0-9._@-]{1,64}$", description = "the provider's id", example = "12345")),
    request_body(content = NameBody, example = json!({"name": "Анна Ким"})),
    responses(
        (status = 200, description = "the profile after it", body = ProfileBody, example = json!({
            "user_id": "12345", "display_name": "Анна Ким", "max_first_name": "Анна", "max_last_name": "",
            "user_provided_name": "Анна Ким", "has_full_name": true, "source": "user_input",
            "last_updated": "2026-07-01T12:00:00.000000Z"
        })),
    ))]
pub(super) async fn post_name(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<String>,
    Json(NameBody { name }): Json<NameBody>,
) -> Result<Json<ProfileBody>, Problem> {
    let change = user_provided(UserId::of_path(&user_id)?, &caller.name, name)?;
    apply(&app, change).await.map(Json)
}

/// The change by which somebody gets the name that they gave.
pub(crate) fn user_provided(user_id: UserId, actor: &str, name: String) -> Result<ProfileChange, Problem> {
    check_name("name", &name).map_err(|fault| Problem::Invalid { faults: vec![fault] })?;
    if name.trim().is_empty() {
        return Err(Problem::invalid("name", "is empty"));
    }
    let change = ProfileChange::new(user_id.into_string(), Cause::UserInput, actor);
    Ok(ProfileChange { user_provided_name: Some(Some(name)), ..change })
}

async fn apply(app: &App, change: ProfileChange) -> Result<ProfileBody, Problem> {
    let user_id = change.user_id.clone();
    let mut changed = app.profiles.change(&[change]).await?;
    changed.remove(&user_id).map(ProfileBody::from).ok_or(Problem::Internal)
}

/// A name that may be left out or null.
type GivenName = Option<Option<String>>;

/// The change that an administrator asks for, or what is wrong with it.
pub(super) fn changes(
    user_id: UserId,
    caller: &Caller,
    max_first_name: GivenName,
    max_last_name: GivenName,
    user_provided_name: GivenName,
) -> Result<ProfileChange, Vec<Fault>> {
    let names = [
        ("max_first_name", &max_first_name),
        ("max_last_name", &max_last_name),
        ("user_provided_name", &user_provided_name),
    ];
    let given = names.iter().filter_map(|(field, name)| Some((field, name.as_ref()?.as_deref()?)));
    let faults: Vec<Fault> = given.filter_map(|(field, name)| check_name(field, name).err()).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    if names.iter().all(|(_, name)| name.is_none()) {
        let message = "names none of max_first_name, max_last_name and user_provided_name".to_owned();
        return Err(vec![Fault { field: "body".into(), code: "missing", message }]);
    }
    let change = ProfileChange::new(user_id.into_string(), Cause::Manual, &*caller.name);
    Ok(ProfileChange { max_first_name, max_last_name, user_provided_name, ..change })
}
