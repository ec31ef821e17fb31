//! Employees, and the backfills that bring them up to date.

use weir_store::{
    BackfillKind, Cause, Employee, EmployeeFilter, EmployeePatch, FullName, NameSource, NewEmployee, ProfileChange,
    Store,
};

use crate::support::Fixture;

fn name(first: &str, last: &str) -> FullName {
    FullName { first: first.into(), last: last.into() }
}

fn new(phone: &str, max_id: Option<&str>, name: FullName) -> NewEmployee {
    NewEmployee {
        phone: phone.into(),
        max_id: max_id.map(str::to_owned),
        name,
        university_id: None,
        profile_source: NameSource::Manual,
        profile_last_updated: None,
    }
}

async fn hire(store: &Store, max_id: Option<&str>, name: FullName) -> i64 {
    store.create_employee(&new("+1234567890", max_id, name)).await.unwrap().id
}

async fn know(store: &Store, id: &str, first: &str, last: &str) {
    let change = ProfileChange {
        max_first_name: Some(Some(first.into())),
        max_last_name: Some(Some(last.into())),
        ..ProfileChange::new(id, Cause::Webhook, "e")
    };
    store.change_profiles(&[change]).await.unwrap();
}

async fn show(store: &Store, id: i64) -> Employee {
    store.find_employee(id).await.unwrap().expect("an employee")
}

/// Runs a backfill to its end and gives how many it changed.
async fn run(store: &Store, kind: BackfillKind, most: u16) -> usize {
    let backfill = store.begin_backfill(kind).await.unwrap();
    let mut changed = 0;
    loop {
        let step = store.backfill_step(&backfill, most, false).await.unwrap();
        changed += step.changed;
        if step.looked_at < usize::from(most) {
            return changed;
        }
    }
}

/// Undoes a backfill, and gives how many rows are as they were.
async fn undo(store: &Store, id: i64, most: u16) -> usize {
    let (mut reached, mut restored) = (0, 0);
    loop {
        let step = store.undo_backfill_step(id, reached, most).await.unwrap();
        reached = step.reached;
        restored += step.restored;
        if step.looked_at < usize::from(most) {
            return restored;
        }
    }
}

#[tokio::test]
async fn an_employee_is_made_found_changed_and_removed() {
    let f = Fixture::new().await;
    let made = f.store.create_employee(&new("+1234567890", Some("7"), name("Анна", "Ким"))).await.unwrap();
    assert!(show(&f.store, made.id).await == made);
    assert_eq!((made.phone.as_str(), made.profile_source.as_str()), ("+1234567890", "manual"));
    let same_phone = f.store.create_employee(&new("+1234567890", None, name("", ""))).await.unwrap();
    assert_ne!(same_phone.id, made.id);

    let patch = EmployeePatch { university_id: Some(Some(5)), ..EmployeePatch::default() };
    let changed = f.store.change_employee(made.id, &patch).await.unwrap().unwrap();
    assert!(changed.university_id == Some(5) && changed.name == made.name && changed.updated_at > made.updated_at);
    let version = Some(made.created_at);
    let patch = EmployeePatch {
        max_id: Some(None),
        university_id: Some(None),
        phone: Some("+79194961182".into()),
        name: Some((name("Иван", ""), NameSource::Webhook, version)),
    };
    let changed = f.store.change_employee(made.id, &patch).await.unwrap().unwrap();
    assert!(changed.max_id.is_none() && changed.university_id.is_none() && changed.phone == "+79194961182");
    assert!(
        changed.name == name("Иван", "")
            && changed.profile_source == "webhook"
            && changed.profile_last_updated == version
    );
    assert!(
        f.store.change_employee(made.id, &EmployeePatch::default()).await.unwrap().unwrap().name == name("Иван", "")
    );

    assert!(f.store.delete_employee(made.id).await.unwrap());
    assert!(!f.store.delete_employee(made.id).await.unwrap());
    assert!(f.store.find_employee(made.id).await.unwrap().is_none());
    assert!(f.store.change_employee(made.id, &patch).await.unwrap().is_none());
}

#[tokio::test]
async fn employees_are_listed_by_what_is_asked_for_page_by_page() {
    let f = Fixture::new().await;
    for n in 0..6_i64 {
        let university_id = Some(n % 2);
        let someone = new(&format!("+123456789{n}"), Some(&n.to_string()), name("A", "B"));
        f.store.create_employee(&NewEmployee { university_id, ..someone }).await.unwrap();
    }
    let list = async |filter: EmployeeFilter, behind| {
        let found = f.store.list_employees(&filter, behind, 2).await.unwrap();
        found.into_iter().map(|employee| (employee.id, employee.max_id.unwrap())).collect::<Vec<_>>()
    };
    let odd = || EmployeeFilter { university_id: Some(1), ..EmployeeFilter::default() };
    let first = list(odd(), 0).await;
    assert_eq!(first.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["1", "3"]);
    assert_eq!(list(odd(), first[1].0).await[0].1, "5");
    assert_eq!(
        list(EmployeeFilter { phone: Some("+1234567892".into()), ..EmployeeFilter::default() }, 0).await[0].1,
        "2"
    );
    assert_eq!(list(EmployeeFilter { max_id: Some("4".into()), ..odd() }, 0).await, []);
    let webhook = EmployeeFilter { profile_source: Some(NameSource::Webhook), ..EmployeeFilter::default() };
    assert_eq!(list(webhook, 0).await, []);
}

#[tokio::test]
async fn employees_who_were_there_before_the_columns_are_manual_and_survive_the_way_down() {
    let f = Fixture::new().await;
    let id = hire(&f.store, Some("7"), name("Анна", "Ким")).await;
    let later = f.store.migration_status().await.unwrap().iter().filter(|migration| migration.version >= 10).count();
    f.store.migrate_down(later).await.unwrap();
    let before: String = sqlx::query_scalar("SELECT first_name FROM employees").fetch_one(f.pool()).await.unwrap();
    assert_eq!(before, "Анна");
    f.store.migrate_up().await.unwrap();
    let after = show(&f.store, id).await;
    assert_eq!((after.profile_source.as_str(), after.profile_last_updated), ("manual", None));
}

#[tokio::test]
async fn who_has_a_named_profile_counts_as_webhook_after_the_backfill_of_sources() {
    let f = Fixture::new().await;
    know(&f.store, "1", "Иван", "Петров").await;
    know(&f.store, "2", "", "").await;
    let known = hire(&f.store, Some("1"), name("Other", "Name")).await;
    let nameless = hire(&f.store, Some("2"), name("A", "B")).await;
    let unseen = hire(&f.store, Some("3"), name("A", "B")).await;
    let without = hire(&f.store, None, name("A", "B")).await;
    assert_eq!(run(&f.store, BackfillKind::Sources, 2).await, 1);
    let employee = show(&f.store, known).await;
    assert!(employee.profile_source == "webhook" && employee.name == name("Other", "Name"));
    assert_eq!(employee.profile_last_updated, Some(f.store.find_profile("1").await.unwrap().unwrap().last_updated));
    for other in [nameless, unseen, without] {
        assert_eq!(show(&f.store, other).await.profile_source, "manual");
    }
    assert_eq!(run(&f.store, BackfillKind::Sources, 100).await, 0, "once is enough");
}

#[tokio::test]
async fn unknown_names_are_filled_from_the_profile_of_the_id_or_of_the_phone() {
    let f = Fixture::new().await;
    know(&f.store, "1", "Иван", "Петров").await;
    let phone = ProfileChange { phone: Some("+79194961182".into()), ..ProfileChange::new("1", Cause::Webhook, "e") };
    f.store.change_profiles(&[phone]).await.unwrap();
    let unknown = hire(&f.store, Some("1"), name("Неизвестно", "")).await;
    let half = hire(&f.store, Some("1"), name("Иван", "")).await;
    let another = hire(&f.store, Some("1"), name("Анна", "")).await;
    let by_phone = f.store.create_employee(&new("+79194961182", None, name("", ""))).await.unwrap().id;
    assert_eq!(run(&f.store, BackfillKind::Names, 100).await, 3);
    for id in [unknown, half, by_phone] {
        let employee = show(&f.store, id).await;
        assert!(employee.name == name("Иван", "Петров") && employee.profile_source == "webhook");
    }
    assert!(show(&f.store, another).await.name == name("Анна", ""));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let f = Fixture::new().await;
    know(&f.store, "1", "Иван", "Петров").await;
    let id = hire(&f.store, Some("1"), name("", "")).await;
    let backfill = f.store.begin_backfill(BackfillKind::Names).await.unwrap();
    let before = show(&f.store, id).await;
    let step = f.store.backfill_step(&backfill, 10, true).await.unwrap();
    assert_eq!((step.looked_at, step.changed), (1, 1));
    assert!(show(&f.store, id).await == before);
    assert_eq!(f.count("employee_backfill_rows").await, 0);
    assert_eq!(f.store.begin_backfill(BackfillKind::Names).await.unwrap(), backfill);
}

#[tokio::test]
async fn an_interrupted_backfill_goes_on_where_it_was_and_two_at_once_do_each_row_once() {
    let f = Fixture::new().await;
    know(&f.store, "1", "Иван", "Петров").await;
    for _ in 0..50 {
        hire(&f.store, Some("1"), name("", "")).await;
    }
    let begun = f.store.begin_backfill(BackfillKind::Names).await.unwrap();
    assert_eq!(f.store.backfill_step(&begun, 10, false).await.unwrap().changed, 10);
    let again = f.store.begin_backfill(BackfillKind::Names).await.unwrap();
    assert_eq!((again.id, again.reached > 0), (begun.id, true));
    let (one, other) = tokio::join!(run(&f.store, BackfillKind::Names, 3), run(&f.store, BackfillKind::Names, 3));
    // The slower of the two may find all done and begin a new one, which finds nothing.
    assert_eq!(one + other, 40);
    assert_eq!(f.store.count_backfilled(begun.id).await.unwrap(), 50);
    let next = f.store.begin_backfill(BackfillKind::Sources).await.unwrap();
    assert_ne!(next.id, begun.id);
}

#[tokio::test]
async fn a_backfill_is_undone_except_where_somebody_changed_the_row_since() {
    let f = Fixture::new().await;
    know(&f.store, "1", "Иван", "Петров").await;
    let mut employees = Vec::new();
    for _ in 0..5 {
        employees.push(hire(&f.store, Some("1"), name("Неизвестно", "")).await);
    }
    assert_eq!(run(&f.store, BackfillKind::Names, 100).await, 5);
    let backfill = f.store.find_backfill(None).await.unwrap().unwrap();
    assert!(backfill.finished && backfill.kind == BackfillKind::Names);
    let patch = EmployeePatch { university_id: Some(Some(1)), ..EmployeePatch::default() };
    f.store.change_employee(employees[2], &patch).await.unwrap();
    f.store.delete_employee(employees[3]).await.unwrap();
    assert_eq!(undo(&f.store, backfill.id, 2).await, 3);
    for (index, id) in employees.iter().enumerate().filter(|(index, _)| *index != 3) {
        let employee = show(&f.store, *id).await;
        let (expected, source) = if index == 2 {
            (name("Иван", "Петров"), "webhook")
        } else {
            (name("Неизвестно", ""), "manual")
        };
        assert!(employee.name == expected && employee.profile_source == source, "{index}");
    }
    assert_eq!(undo(&f.store, backfill.id, 100).await, 0, "twice does no harm");
    assert!(f.store.find_backfill(None).await.unwrap().is_none());
    assert!(f.store.find_backfill(Some(backfill.id)).await.unwrap().unwrap().undone_at.is_some());
    assert_ne!(f.store.begin_backfill(BackfillKind::Names).await.unwrap().id, backfill.id);
}
