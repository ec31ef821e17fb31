//! Profiles: what is known of people, read through the cache and changed through the store.

mod bulk;
mod change;
mod dto;
mod history;
mod search;
mod show;
mod stats;
mod through;
mod user_id;

pub(crate) use change::user_provided;
pub(crate) use dto::{ProfileBody, check_name, given};
pub(crate) use through::{Profiles, count};
pub(crate) use user_id::{AnyUserId, UserId};

use utoipa_axum::routes;

use crate::routes::Table;

pub(crate) fn routes() -> Table {
    Table::new("Profiles", "What is known of the people who write: their names, and which of them counts.")
        .read(routes!(search::search))
        .read(routes!(stats::stats))
        .read(routes!(bulk::bulk_get))
        .admin(routes!(bulk::bulk_put))
        .read(routes!(show::show))
        .admin(routes!(change::put))
        .write(routes!(change::post_name))
        .read(routes!(history::history))
}
