//! Employees: who works where, and under which name.

mod change;
mod config;
mod create;
mod dto;
mod list;
mod names;
mod show;

pub use config::{EmployeesConfig, Percentage};

use utoipa_axum::routes;

use crate::routes::Table;

pub(crate) fn routes() -> Table {
    Table::new("Employees", "People who work for a university. Names that nobody gave come from profiles.")
        .write(routes!(create::create))
        .read(routes!(list::list))
        .read(routes!(show::show))
        .write(routes!(change::patch))
        .admin(routes!(change::delete))
}
