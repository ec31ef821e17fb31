//! Employees over HTTP: under which name somebody is one, and what may go wrong meanwhile.

use std::net::Ipv4Addr;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use weir_stack::FaultProxy;
use weir_store::testing::Session;
use weir_store::{ProfileChange, Role};

use crate::profiles::person;
use crate::support::{House, Reply, Running, cache_at};

impl House {
    async fn hire(&self, body: &Value) -> Value {
        let reply = self.send(Role::Write, Method::POST, "/employees", body).await;
        let employee = reply.is(201);
        assert_eq!(reply.header("location"), format!("/employees/{}", employee["id"]));
        employee
    }

    async fn patch(&self, id: &Value, body: &Value) -> Reply {
        self.send(Role::Write, Method::PATCH, &format!("/employees/{id}"), body).await
    }
}

/// First name, last name, source.
fn named(employee: &Value) -> (&str, &str, &str) {
    let text = |field: &str| employee[field].as_str().unwrap_or_default();
    (text("first_name"), text("last_name"), text("profile_source"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_of_the_guide_work_more_than_once() {
    let house = House::new().await;
    let sample = json!({
        "phone": "+1234567890", "max_id": "test", "first_name": "Test", "last_name": "User", "university_id": 1
    });
    let (one, two) = (house.hire(&sample).await, house.hire(&sample).await);
    assert_ne!(one["id"], two["id"]);
    assert_eq!(named(&one), ("Test", "User", "manual"));
    assert_eq!(
        (&one["phone"], &one["max_id"], &one["university_id"]),
        (&"+1234567890".into(), &"test".into(), &1.into())
    );
    assert_eq!(house.get(&format!("/employees/{}", one["id"])).await.is(200), one);
    assert_eq!(named(&house.hire(&json!({"phone": "+1234567890"})).await), ("Неизвестно", "Неизвестно", "default"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_comes_from_the_request_then_the_user_then_max_then_nowhere() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    house.know("2", "Иван", "Петров").await;
    house.send(Role::Write, Method::POST, "/profiles/2/name", &json!({"name": "Анна Мария Ким"})).await.is(200);
    let hire = async |max_id: Value, first: Value| {
        house.hire(&json!({"phone": "+1234567890", "max_id": max_id, "first_name": first})).await
    };
    assert_eq!(named(&hire("2".into(), "Given".into()).await), ("Given", "", "manual"));
    let told = hire(2.into(), Value::Null).await;
    assert_eq!(named(&told), ("Анна Мария Ким", "", "user_input"));
    assert_eq!(told["profile_last_updated"], house.get("/profiles/2").await.is(200)["last_updated"]);
    assert_eq!(named(&hire("1".into(), "".into()).await), ("Иван", "Петров", "webhook"));
    assert_eq!(named(&hire("unseen".into(), Value::Null).await), ("Неизвестно", "Неизвестно", "default"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_id_a_confirmed_phone_tells_who_it_is() {
    let house = House::new().await;
    let phone = ProfileChange { phone: Some("+79194961182".into()), ..person("1", "Иван", "Петров") };
    house.store.change_profiles(&[phone]).await.unwrap();
    let employee = house.hire(&json!({"phone": "+7 919 496-11-82"})).await;
    assert_eq!((named(&employee), &employee["max_id"]), (("Иван", "Петров", "webhook"), &"1".into()));
    let named_by_request = house.hire(&json!({"phone": "+79194961182", "first_name": "Пётр"})).await;
    assert_eq!((named(&named_by_request), &named_by_request["max_id"]), (("Пётр", "", "manual"), &"1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_stalls_or_is_gone_keeps_nobody_out() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    let proxy = FaultProxy::start((Ipv4Addr::LOCALHOST, house.redis.port()).into()).await;
    let url = house.redis.url().replace(&house.redis.port().to_string(), &proxy.addr().port().to_string());
    let cache = cache_at(&url, |config| config.timeout = Duration::from_millis(500));
    let api = Running::start(house.store.clone(), house.queue.clone(), Some(cache), &[]);
    let house = house.with_api(api);
    for trouble in ["stall", "refuse"] {
        proxy.stall(trouble == "stall");
        proxy.refuse(trouble == "refuse");
        proxy.cut();
        let employee = house.hire(&json!({"phone": "+1234567890", "max_id": "1"})).await;
        assert_eq!(named(&employee), ("Иван", "Петров", "webhook"), "{trouble}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_that_cannot_be_read_in_time_keep_nobody_out() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    let cache = cache_at(&house.redis.url(), |config| config.timeout = Duration::from_millis(200));
    let api = Running::start(house.store.clone(), house.queue.clone(), Some(cache), &[]);
    let house = house.with_api(api);
    let mut somebody = Session::open(&house.database).await.unwrap();
    somebody.run("BEGIN; LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let employee = house.hire(&json!({"phone": "+1234567890", "max_id": "1"})).await;
    assert_eq!((named(&employee), &employee["max_id"]), (("Неизвестно", "Неизвестно", "default"), &"1".into()));
    let by_phone = house.hire(&json!({"phone": "+79194961182"})).await;
    assert_eq!(named(&by_phone), ("Неизвестно", "Неизвестно", "default"));
    somebody.run("ROLLBACK").await.unwrap();
    assert_eq!(
        named(&house.hire(&json!({"phone": "+1234567890", "max_id": "1"})).await),
        ("Иван", "Петров", "webhook")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switched_off_integration_and_a_rollout_leave_profiles_alone() {
    let house = House::new().await;
    for n in 0..100 {
        house.know(&n.to_string(), "Иван", "Петров").await;
    }
    let hired = async |settings: &[(&str, &str)]| {
        let cache = Some(cache_at(&house.redis.url(), |_| {}));
        let api = Running::start(house.store.clone(), house.queue.clone(), cache, settings);
        let mut with_name = Vec::new();
        for n in 0..100 {
            let body = json!({"phone": "+1234567890", "max_id": n});
            let employee = house.send_to(&api, Role::Write, Method::POST, "/employees", &body).await.is(201);
            with_name.push(employee["profile_source"] == "webhook");
        }
        with_name
    };
    let count = |of: &[bool]| of.iter().filter(|it| **it).count();
    assert_eq!(count(&hired(&[("employees.profiles", "false")]).await), 0);
    assert_eq!(count(&hired(&[("employees.rollout", "0")]).await), 0);
    let quarter = hired(&[("employees.rollout", "25")]).await;
    assert!((10..=45).contains(&count(&quarter)), "{quarter:?}");
    assert_eq!(hired(&[("employees.rollout", "25%")]).await, quarter, "the same ones each time");
    assert_eq!(count(&hired(&[]).await), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named_at_once() {
    let house = House::new().await;
    let wrong = json!({"phone": "12", "first_name": "a\u{0}", "last_name": "x".repeat(300), "university_id": 0});
    let problem = house.send(Role::Write, Method::POST, "/employees", &wrong).await.is_problem(422, "invalid");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|it| it["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["phone", "first_name", "last_name", "university_id"]);
    for (body, field) in [
        (json!({}), "phone"),
        (json!({"phone": "+1234567890", "max_id": "a b"}), "max_id"),
        (json!({"phone": "+1234567890", "max_id": 1.5}), "max_id"),
        (json!({"phone": "+1234567890", "age": 7}), "age"),
    ] {
        let problem = house.send(Role::Write, Method::POST, "/employees", &body).await.is_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_employee_is_changed_field_by_field_and_removed() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    house.know("2", "Анна", "Ким").await;
    let id = house.hire(&json!({"phone": "+1234567890", "max_id": "1", "university_id": 1})).await["id"].take();
    for (body, name, university) in [
        (json!({"university_id": 2}), ("Иван", "Петров", "webhook"), json!(2)),
        (json!({"max_id": "2"}), ("Анна", "Ким", "webhook"), json!(2)),
        (json!({"first_name": "Аня", "university_id": null}), ("Аня", "Ким", "manual"), Value::Null),
        (json!({"max_id": "1"}), ("Аня", "Ким", "manual"), Value::Null),
        (json!({"first_name": null, "last_name": ""}), ("Иван", "Петров", "webhook"), Value::Null),
        (json!({"max_id": null}), ("Неизвестно", "Неизвестно", "default"), Value::Null),
        (json!({"first_name": "Аня"}), ("Аня", "", "manual"), Value::Null),
    ] {
        let employee = house.patch(&id, &body).await.is(200);
        assert_eq!((named(&employee), &employee["university_id"]), (name, &university), "{body}");
        assert_eq!(house.get(&format!("/employees/{id}")).await.is(200), employee);
    }
    house.patch(&id, &json!({"phone": "x"})).await.is_problem(422, "invalid");
    house.patch(&json!(999_999), &json!({})).await.is_problem(404, "not-found");
    let path = format!("/employees/{id}");
    let delete = async || house.call(Method::DELETE, &path, Some(house.key(Role::Admin)), None).await;
    assert_eq!(delete().await.status, 204);
    delete().await.is_problem(404, "not-found");
    house.get(&path).await.is_problem(404, "not-found");
    house.get("/employees/x").await.is_problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn employees_are_listed_by_what_is_asked_for() {
    let house = House::new().await;
    for n in 0..5 {
        let body =
            json!({"phone": format!("+123456789{n}"), "max_id": n, "university_id": n % 2 + 1, "first_name": "A"});
        house.hire(&body).await;
    }
    let found = async |query: &str| {
        let page = house.get(&format!("/employees?{query}")).await.is(200);
        page["items"].as_array().unwrap().iter().map(|it| it["max_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("").await, ["0", "1", "2", "3", "4"]);
    assert_eq!(found("university_id=2").await, ["1", "3"]);
    assert_eq!(found("phone=%2B1234567893").await, ["3"]);
    assert_eq!(found("phone=+1234567893").await, ["3"]);
    assert_eq!(found("max_id=4&profile_source=manual").await, ["4"]);
    assert!(found("profile_source=webhook").await.is_empty());
    let first = house.get("/employees?limit=3").await.is(200);
    assert_eq!(found(&format!("limit=3&cursor={}", first["next"].as_str().unwrap())).await, ["3", "4"]);
    for wrong in ["phone=x", "university_id=0", "profile_source=x", "limit=0", "cursor=x", "name=A"] {
        house.get(&format!("/employees?{wrong}")).await.is_problem(422, "invalid");
    }
}
