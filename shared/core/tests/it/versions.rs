//! Two builds at once, as while a new one is rolled out.

use std::collections::HashMap;

use redis::Value;
use weir_core::queue::consume::Lane;
use weir_core::queue::enqueue::Enqueued;

use crate::support::{Place, ids, message, new_id};

/// Our library as a build with another content would have loaded it; gives its name.
async fn other_build(place: &Place) -> String {
    let ours = place.queue.library();
    let mut found: Vec<HashMap<String, Value>> =
        place.ask(&["FUNCTION", "LIST", "LIBRARYNAME", ours, "WITHCODE"]).await;
    let code: String = redis::from_redis_value(found.remove(0).remove("library_code").unwrap()).unwrap();
    let theirs = "weir_0ther000".to_owned();
    let _: String = place.ask(&["FUNCTION", "LOAD", &code.replace(ours, &theirs)]).await;
    theirs
}

#[tokio::test]
async fn two_function_libraries_side_by_side_serve_one_queue() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    place.join("new").await;
    let theirs = other_build(&place).await;
    let keys = place.queue.keys(0);
    let call = async |name: &str, keys: &[&str], args: &[&str]| -> Value {
        let (name, count) = (format!("{theirs}_{name}"), keys.len().to_string());
        place.ask(&[&["FCALL", &name, &count], keys, args].concat()).await
    };

    // An old worker takes a lease and settles what a new gateway appended, while a new worker does the same.
    let joined = call("beat", &[&keys.alive], &["60000", "join", "old"]).await;
    assert_eq!(joined, Value::BulkString(b"OK".to_vec()));
    place.fill(10).await;
    let (of_old, of_new) = (place.read(Lane::Ingest, "old", 4).await, place.read(Lane::Ingest, "new", 4).await);
    let settled = [&["old", "4"][..], &ids(&of_old)].concat();
    call("settle", &[&keys.ingest, &keys.count, &keys.alive], &settled).await;
    place.settle(Lane::Ingest, "new", &ids(&of_new)).await;
    assert_eq!((place.balance().await.stored, place.balance().await.undelivered), (8, 2));

    // Each goes on when the other one's library is dropped, and a message is the same to both.
    let id = new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    let _: String = place.ask(&["FUNCTION", "DELETE", &theirs]).await;
    assert_eq!(enqueuer.enqueue(&[message("a", "x")]).await[0].as_ref().unwrap(), &Enqueued::Duplicate(id));
    other_build(&place).await;
    let _: String = place.ask(&["FUNCTION", "DELETE", place.queue.library()]).await;
    call("beat", &[&keys.alive], &["60000", "renew", "old"]).await;
    assert_eq!(place.balance().await.workers, 2, "ours was loaded again");
}
