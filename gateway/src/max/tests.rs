use std::path::Path;

use weir_core::event::MessageChange;

use super::*;

const NOW: i64 = 1_780_000_000_000;
const AT: i64 = 1_775_000_000_000;

fn one(body: &str) -> Result<Event<'_>, Ignored> {
    let mut all = decode(body.as_bytes(), NOW, "");
    assert_eq!(all.len(), 1, "{body}");
    all.remove(0)
}

/// What an event says, in short: key; message; person.
fn told(body: &str) -> String {
    let event = match one(body) {
        Ok(event) => event,
        Err(ignored) => return ignored.as_str().to_owned(),
    };
    let words = |content: &weir_core::event::Content<'_>| {
        let text = content.text.as_deref().unwrap_or("-");
        format!("{} {} in {:?} by {}: {text}", content.id, content.sent_ms, &*content.dialog, content.client)
    };
    let message = match &event.message {
        None => "-".to_owned(),
        Some(MessageChange::Created(content)) => format!("new {}", words(content)),
        Some(MessageChange::Edited { of, content }) => format!("{of} is {}", words(content)),
        Some(MessageChange::Removed { of }) => format!("{of} is gone"),
    };
    let user = event.user.as_ref().map_or("-".to_owned(), |user| {
        let name = |name: &Option<Cow<'_, str>>| name.as_deref().map_or("?".to_owned(), |name| format!("{name:?}"));
        let phone = user.phone.as_deref().map(|phone| format!(" {phone}")).unwrap_or_default();
        format!("{} {} {}{phone}", user.id, name(&user.first_name), name(&user.last_name))
    });
    format!("{}; {message}; {user}", event.id)
}

fn person(id: &str) -> String {
    format!(
        r#"{{"user_id":{id},"first_name":"Анна","last_name":"Ким","is_bot":false,"last_activity_time":1,"name":"Анна Ким"}}"#
    )
}

fn bot() -> String {
    person("99").replace("\"is_bot\":false", "\"is_bot\":true")
}

/// An update as MAX writes it: its type comes last.
fn update(kind: &str, members: &str) -> String {
    format!(r#"{{"timestamp":{AT},{members},"user_locale":"ru","update_type":"{kind}"}}"#)
}

fn message(sender: &str, body: &str) -> String {
    format!(
        r#""message":{{"recipient":{{"chat_id":182,"chat_type":"dialog","user_id":99}},"timestamp":1774999999000,"body":{body}{sender}}}"#
    )
}

fn by(sender: &str) -> String {
    format!(r#","sender":{sender}"#)
}

const BODY: &str = r#"{"mid":"mid.0a","seq":116328147937082782,"text":"Привет"}"#;

#[test]
fn every_type_of_update_gives_its_message_person_or_silence() {
    let anna = person("7");
    let chat = format!(r#""chat_id":-5,"user":{anna},"user_id":8"#);
    let dialog = format!(r#""chat_id":182,"user":{anna}"#);
    let callback = format!(
        r#""callback":{{"timestamp":1775000000210,"callback_id":"kb","user":{anna},"payload":"x"}},{}"#,
        message(&by(&bot()), BODY)
    );
    let cases = [
        (
            "message_created",
            message(&by(&anna), BODY),
            "mc:mid.0a; new mid.0a 1774999999000 in \"182\" by 7: Привет; 7 \"Анна\" \"Ким\"".into(),
        ),
        (
            "message_created",
            message(&by(&bot()), BODY),
            "mc:mid.0a; new mid.0a 1774999999000 in \"182\" by 99: Привет; -".into(),
        ),
        (
            "message_created",
            message("", BODY),
            "mc:mid.0a; new mid.0a 1774999999000 in \"182\" by 182: Привет; -".into(),
        ),
        (
            "message_edited",
            message(&by(&anna), BODY),
            format!("me:mid.0a:{AT}; mc:mid.0a is mid.0a 1774999999000 in \"182\" by 7: Привет; 7 \"Анна\" \"Ким\""),
        ),
        (
            "message_removed",
            r#""message_id":"mid.0a","chat_id":182,"user_id":7"#.to_owned(),
            "mr:mid.0a; mc:mid.0a is gone; 7 ? ?".into(),
        ),
        ("message_callback", callback, "cb:kb:1775000000210:7; -; 7 \"Анна\" \"Ким\"".into()),
        ("bot_started", dialog.clone(), format!("bot_started:182:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("bot_stopped", dialog.clone(), format!("bot_stopped:182:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("bot_added", chat.clone(), format!("bot_added:-5:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("bot_removed", chat.clone(), format!("bot_removed:-5:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("user_added", chat.clone(), format!("user_added:-5:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("user_removed", chat.clone(), format!("user_removed:-5:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("dialog_cleared", dialog.clone(), format!("dialog_cleared:182:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        ("dialog_removed", dialog.clone(), format!("dialog_removed:182:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        (
            "dialog_muted",
            format!("{dialog},\"muted_until\":1775027479470"),
            format!("dialog_muted:182:7:{AT}; -; 7 \"Анна\" \"Ким\""),
        ),
        ("dialog_unmuted", dialog, format!("dialog_unmuted:182:7:{AT}; -; 7 \"Анна\" \"Ким\"")),
        (
            "chat_title_changed",
            format!("{chat},\"title\":\"x\""),
            format!("chat_title_changed:-5:7:{AT}; -; 7 \"Анна\" \"Ким\""),
        ),
        ("message_created", r#""x":1"#.to_owned(), "malformed".into()),
        ("message_removed", r#""chat_id":1"#.to_owned(), "malformed".into()),
        ("poll_answered", r#""x":1"#.to_owned(), "unknown".into()),
    ];
    for (kind, members, expected) in cases {
        assert_eq!(told(&update(kind, &members)), expected, "{kind}");
    }
}

#[test]
fn what_has_no_id_of_its_own_is_known_by_its_bytes() {
    let body = update("comment_created", &message(&by(&person("7")), BODY));
    let expected = format!("{}; -; 7 \"Анна\" \"Ким\"", key_of_bytes(&body));
    assert_eq!(told(&body), expected);
    let forward = update("message_created", &message(&by(&person("7")), "null"));
    assert!(told(&forward).starts_with(&key_of_bytes(&forward)));
}

#[test]
fn who_is_forwarded_is_not_the_sender() {
    let link = format!(r#","link":{{"type":"forward","sender":{},"message":{BODY}}}"#, person("398"));
    let body = update("message_created", &message(&format!("{}{link}", by(&person("7"))), BODY));
    let event = one(&body).unwrap();
    assert_eq!(event.user.unwrap().id, "7");
    let Some(MessageChange::Created(content)) = event.message else { panic!("a new message") };
    assert!(content.extra.unwrap().get().contains("398"), "what was forwarded is kept");
}

#[test]
fn attachments_are_kept_to_the_last_digit_and_a_phone_is_taken_from_ones_own_contact() {
    let attachments = r#"[{"type":"contact","payload":{"vcf_info":"BEGIN:VCARD\r\nTEL;TYPE=cell:79990000000\r\nEND:VCARD\r\n","max_info":{"user_id":7}}},{"type":"image","payload":{"photo_id":116328147937082782}}]"#;
    let body = update(
        "message_created",
        &message(&by(&person("7")), &format!(r#"{{"mid":"m","seq":1,"text":null,"attachments":{attachments}}}"#)),
    );
    let event = one(&body).unwrap();
    assert_eq!(event.user.unwrap().phone.as_deref(), Some("+79990000000"));
    let Some(MessageChange::Created(content)) = event.message else { panic!("a new message") };
    assert_eq!((content.text, content.extra.unwrap().get()), (None, &*format!(r#"{{"attachments":{attachments}}}"#)));
}

#[test]
fn ids_are_exact_as_numbers_and_as_strings() {
    for (written, kept) in [
        ("116328147937082782", "116328147937082782"),
        ("18446744073709551615", "18446744073709551615"),
        ("\"12345\"", "12345"),
        ("\"test\"", "test"),
    ] {
        let event = update("bot_started", &format!(r#""chat_id":1,"user":{}"#, person(written)));
        assert_eq!(one(&event).unwrap().user.unwrap().id, kept);
    }
    for wrong in ["1.5", "1e3", "true", "null", "-1", "\"\"", "\"a:b\"", "\"a/b\"", "\"a\\u0000\"", "[1]", "\"я\""] {
        let event = update("bot_started", &format!(r#""chat_id":1,"user":{}"#, person(wrong)));
        assert_eq!(one(&event).unwrap_err(), Ignored::Malformed, "{wrong}");
    }
}

#[test]
fn the_documents_format_is_read_as_they_print_it() {
    let event = one(
        r#"{"type":"message_new","message":{"from":{"user_id":"12345","first_name":"Иван","last_name":"Петров"},"text":"Hello"}}"#,
    );
    let event = event.unwrap();
    assert_eq!((&*event.kind, &*event.user.unwrap().id), ("message_new", "12345"));
    let Some(MessageChange::Created(content)) = event.message else { panic!("a new message") };
    assert_eq!((content.text.as_deref(), content.sent_ms, &*content.client), (Some("Hello"), NOW, "12345"));
    let curl = r#"{"type":"message_new","message":{"from":{"user_id":"test","first_name":"Test"}}}"#;
    let (first, second) = (one(curl).unwrap(), one(curl).unwrap());
    assert_ne!(first.id, second.id, "every post is another one");
    assert_eq!(first.user.unwrap().last_name.as_deref(), Some(""));
    let press = r#"{"type":"callback_query","callback_query":{"user":{"user_id":"12345","first_name":"Иван"}}}"#;
    assert_eq!(one(press).unwrap().user.unwrap().first_name.as_deref(), Some("Иван"));
    let known = r#"{"type":"message_new","message":{"id":5,"from":{"user_id":1},"text":"x"}}"#;
    assert_eq!(one(known).unwrap().id, "mn:5");
    for (chat, dialog) in
        [("67890", "67890"), ("-70801090403050", "-70801090403050"), (r#""a""#, "a"), ("1.5", ""), ("{}", "")]
    {
        let body = format!(
            r#"{{"type":"message_new","message":{{"from":{{"user_id":1}},"chat":{{"chat_id":{chat},"type":"private"}}}}}}"#
        );
        let Some(MessageChange::Created(content)) = one(&body).unwrap().message else { panic!("a new message") };
        assert_eq!(content.dialog, dialog);
    }
}

#[test]
fn what_is_no_event_is_told_apart() {
    for (body, expected) in [
        ("", Ignored::Malformed),
        ("{", Ignored::Malformed),
        ("[]", Ignored::Malformed),
        ("{}", Ignored::Unknown),
        (r#"{"type":"message_new","group_id":1,"object":{}}"#, Ignored::Foreign),
        (r#"{"update_id":1,"message":{}}"#, Ignored::Foreign),
        (r#"{"type":"wall_post_new","message":{}}"#, Ignored::Unknown),
        (r#"{"type":"message_new","message":{"text":"x"}}"#, Ignored::Malformed),
        (r#"{"type":"callback_query"}"#, Ignored::Malformed),
        (r#"{"update_type":7}"#, Ignored::Malformed),
    ] {
        assert_eq!(one(body).unwrap_err(), expected, "{body}");
    }
    assert_eq!(decode(b"\xff", NOW, "").remove(0).unwrap_err(), Ignored::Malformed);
}

#[test]
fn a_page_of_long_polling_is_taken_apart() {
    let started = update("bot_started", &format!(r#""chat_id":1,"user":{}"#, person("7")));
    let page = format!(r#"{{"updates":[{started},{{"update_type":"x"}}],"marker":1}}"#);
    let all = decode(page.as_bytes(), NOW, "");
    assert!(all[0].is_ok() && all[1].as_ref().unwrap_err() == &Ignored::Unknown);
}

#[test]
fn an_impossible_time_is_replaced() {
    for at in ["1", "99999999999999", "-5"] {
        let body = update("message_created", &message(&by(&person("7")), BODY)).replace("1774999999000", at);
        let Some(MessageChange::Created(content)) = one(&body).unwrap().message else { panic!("a new message") };
        assert_eq!(content.sent_ms, AT, "{at}");
    }
}

/// The samples of the official client, where they are at hand: what each tells, in the words of [`told`].
#[test]
fn the_official_samples_tell_what_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/max");
    if !folder.exists() {
        #[expect(clippy::print_stderr, reason = "what is not tested is said")]
        {
            eprintln!("skipped: {} is not there", folder.display());
        }
        return;
    }
    const JOHN: &str = r#"123456789 "John" "Doe""#;
    const EDITED: &str = "mid.000000000adf429c019d47b1ce4600ff";
    const NEW: &str = "mid.ffffbdb48e6c3775019d496b34394b84";
    const BUTTON: &str = "f9LHodD0cOJf4_DkJGeq8BkDgc5vgSwZocVrn44oirfMzUQ4mv5k_h1-yQvExmZNjV7gVcaO2Z3Gv6LJpZQ-nj_0HTcX7NwSdT4fDtXou9i0A51TjSj9";
    let happened = |kind: &str, chat: &str| format!("{kind}:{chat}:123456789:1775025604499; -; {JOHN}");
    let mut expected = vec![
        (
            "message_created",
            format!(r#"mc:{NEW}; new {NEW} 1775053255737 in "-70801090403050" by 123456789: ...; {JOHN}"#),
        ),
        (
            "message_edited",
            format!(
                r#"me:{EDITED}:1775025604499; mc:{EDITED} is {EDITED} 1775025603399 in "182182182" by 123456789: hi bot; {JOHN}"#
            ),
        ),
        ("message_removed", format!("mr:{EDITED}; mc:{EDITED} is gone; 123456789 ? ?")),
        ("message_callback", format!("cb:{BUTTON}:1775026702210:123456789; -; {JOHN}")),
    ];
    for kind in ["bot_added", "bot_removed", "user_added", "user_removed", "chat_title_changed"] {
        expected.push((kind, happened(kind, "-70801090403050")));
    }
    for kind in ["bot_started", "bot_stopped", "dialog_cleared", "dialog_removed", "dialog_muted", "dialog_unmuted"] {
        expected.push((kind, happened(kind, "182182182")));
    }
    for (kind, expected) in &expected {
        let text = std::fs::read_to_string(folder.join(format!("webhook.{kind}.json"))).unwrap();
        assert_eq!(&told(&text), expected, "{kind}");
        assert_eq!(one(&text).unwrap().kind, *kind);
    }
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let samples = files.filter(|path| path.extension().is_some_and(|it| it == "json")).count();
    assert_eq!((samples, expected.len()), (15, 15), "all of them");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = decode(&bytes, NOW, "");
    }

    #[test]
    fn no_json_makes_it_panic(text in r#"\{("(update_type|type|updates|message|user|callback)":("message_created"|"message_new"|\{\}|\[\]|null|[0-9]{1,25}),?){0,5}\}"#) {
        let _ = decode(text.as_bytes(), NOW, "");
    }
}
