//! Messages: where one is, which are there, what clients and dialogs hold, and the search.

mod clients;
mod dialogs;
mod lookup;
mod search;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::problem::Problem;
use crate::routes::Table;
use crate::{moment, page};

pub(crate) fn routes() -> Table {
    Table::new("Messages", "What became of messages, and what clients and dialogs hold.")
        .read(routes!(lookup::message))
        .read(routes!(lookup::lookup))
        .read(routes!(clients::client))
        .read(routes!(clients::dialogs))
        .read(routes!(dialogs::of_dialog))
        .read(routes!(search::search))
}

/// Where to look for what has a provider's id.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Where {
    /// Who sent it. Without: `messenger`, else `max`.
    #[param(pattern = "^[a-z0-9_-]{1,64}$", example = "messenger")]
    source: Option<String>,
}

/// Where names are looked for when no source is named, in this order.
const USUAL_SOURCES: [&str; 2] = ["messenger", "max"];

/// The sources that are meant.
fn sources(named: Option<&str>) -> Result<Vec<String>, Problem> {
    let Some(name) = named else { return Ok(USUAL_SOURCES.map(str::to_owned).to_vec()) };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Problem::invalid("source", "is no name of a source: 1 to 64 of a-z, 0-9, - and _"));
    }
    Ok(vec![name.to_owned()])
}

/// A provider's id can be any text that PostgreSQL can hold.
fn check_id(field: impl Into<String>, id: &str) -> Result<(), Problem> {
    if id.is_empty() || id.chars().count() > 1000 || id.contains('\0') {
        return Err(Problem::invalid(field, "has 1 to 1000 characters without NUL"));
    }
    Ok(())
}

/// A message as it was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Message {
    /// Of the row.
    #[schema(example = 1001)]
    id: i64,
    /// The dialog that it belongs to.
    #[schema(example = 7)]
    dialog_id: i64,
    /// The provider's id.
    external_message_id: String,
    /// What was written; null if there is nothing but attachments.
    text: Option<String>,
    /// What else came with it, such as attachments.
    #[schema(value_type = Option<Object>)]
    extra: Option<Box<RawValue>>,
    /// When it was sent, by the provider's clock.
    #[schema(format = DateTime)]
    sent_at: String,
    /// When the gateway accepted it.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// When it was stored.
    #[schema(format = DateTime)]
    stored_at: String,
    /// When it was last changed at the provider.
    #[schema(format = DateTime)]
    edited_at: Option<String>,
    /// When it was removed at the provider.
    #[schema(format = DateTime)]
    removed_at: Option<String>,
    /// The trace that it was accepted under.
    trace_id: Option<String>,
}

impl Message {
    fn of(row: weir_store::Message) -> Self {
        Self {
            id: row.id,
            dialog_id: row.dialog_id,
            external_message_id: row.external_message_id,
            text: row.text,
            extra: row.extra.and_then(|extra| RawValue::from_string(extra).ok()),
            sent_at: moment::text(row.send_at),
            accepted_at: moment::text(row.accepted_at),
            stored_at: moment::text(row.stored_at),
            edited_at: row.edited_at.map(moment::text),
            removed_at: row.removed_at.map(moment::text),
            trace_id: row.trace_id.map(|trace| trace.simple().to_string()),
        }
    }
}

/// A place in a list of messages, as its cursor holds it: microseconds and id.
type Place = (i64, i64);

fn place(moment: weir_store::Moment) -> Place {
    (moment::micros(moment.at), moment.id)
}

fn moment_of((micros, id): Place, field: &str) -> Result<weir_store::Moment, Problem> {
    let at = moment::of_micros(micros).ok_or_else(|| page::no_cursor(field))?;
    Ok(weir_store::Moment { at, id })
}
