//! Whether what an event says of a person is known already, which it nearly always is: then its profile is neither locked nor
//! written, and PostgreSQL compares, so that no row has to come here.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::change::name;
use crate::{Person, StoreError};

/// Gives the user ids of those whose profile does not say so, or is not there. What is held against it are MAX's names, if they
/// are told, and nothing else.
pub(crate) async fn unlike(
    connection: &mut PgConnection,
    people: impl Iterator<Item = &Person> + Clone,
) -> Result<HashSet<String>, StoreError> {
    let each = || people.clone();
    let unlike = sqlx::query_scalar!(
        r#"
        SELECT u.user_id AS "user_id!"
        FROM unnest($1::text[], $2::bool[], $3::text[], $4::text[]) AS u (user_id, named, first_name, last_name)
        WHERE (
            SELECT NOT u.named OR (
                p.max_first_name IS NOT DISTINCT FROM u.first_name AND p.max_last_name IS NOT DISTINCT FROM u.last_name
            )
            FROM profiles p WHERE p.user_id = u.user_id
        ) IS NOT TRUE
        "#,
        &each().map(|person| person.user_id.as_str()).collect::<Vec<_>>() as &[&str],
        &each().map(|person| person.names.is_some()).collect::<Vec<_>>(),
        &each().map(|person| name(&person.names.as_ref()?.0)).collect::<Vec<_>>() as &[Option<&str>],
        &each().map(|person| name(&person.names.as_ref()?.1)).collect::<Vec<_>>() as &[Option<&str>],
    );
    Ok(unlike.fetch_all(connection).await?.into_iter().collect())
}
