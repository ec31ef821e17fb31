//! The phone of who shares their own contact.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::user_id;

#[derive(Deserialize)]
struct Attachment<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Contact<'a> {
    #[serde(borrow, default)]
    vcf_info: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    max_info: Option<MaxInfo<'a>>,
}

#[derive(Deserialize)]
struct MaxInfo<'a> {
    #[serde(borrow)]
    user_id: &'a RawValue,
}

/// The phone of `sender` if one of the attachments is a contact, and their own. Somebody else's says nothing about them.
pub(super) fn phone_of(sender: &str, attachments: &[&RawValue]) -> Option<String> {
    attachments.iter().find_map(|attachment| {
        let attachment: Attachment<'_> = serde_json::from_str(attachment.get()).ok()?;
        if attachment.kind != "contact" {
            return None;
        }
        let contact: Contact<'_> = serde_json::from_str(attachment.payload?.get()).ok()?;
        if user_id(contact.max_info?.user_id).ok()? != sender {
            return None;
        }
        phone(&contact.vcf_info?)
    })
}

/// The number of a card in E.164. Cards write it without the plus, and Russian ones with an 8 in front.
fn phone(card: &str) -> Option<String> {
    let line = card.lines().find(|line| line.get(..3).is_some_and(|name| name.eq_ignore_ascii_case("TEL")))?;
    let written = line.split_once(':')?.1;
    let digits: String = written.chars().filter(char::is_ascii_digit).collect();
    let digits = match digits.strip_prefix('8') {
        Some(rest) if digits.len() == 11 && !written.trim_start().starts_with('+') => format!("7{rest}"),
        _ => digits,
    };
    let good = (7..=15).contains(&digits.len()) && !digits.starts_with('0');
    good.then(|| format!("+{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(by: &str, tel: &str) -> Option<String> {
        let json = format!(
            r#"[{{"type":"image","payload":{{}}}},{{"type":"contact","payload":{{"vcf_info":"BEGIN:VCARD\r\nVERSION:3.0\r\n{tel}\r\nFN:x\r\nEND:VCARD\r\n","max_info":{{"user_id":{by}}}}}}}]"#
        );
        let attachments: Vec<&RawValue> = serde_json::from_str(&json).unwrap();
        phone_of("7", &attachments)
    }

    #[test]
    fn ones_own_contact_gives_a_phone_and_nobody_elses() {
        let line = "TEL;TYPE=cell:79990000000";
        assert_eq!(shared("7", line).as_deref(), Some("+79990000000"));
        assert_eq!(shared("\"7\"", line).as_deref(), Some("+79990000000"));
        assert_eq!(shared("8", line), None);
    }

    #[test]
    fn a_phone_is_read_however_a_card_writes_it() {
        for (line, expected) in [
            ("TEL;TYPE=cell:89990000000", Some("+79990000000")),
            ("TEL:+7 (999) 000-00-00", Some("+79990000000")),
            ("tel:+819012345678", Some("+819012345678")),
            ("TEL:12345", None),
            ("TEL:", None),
            ("TEL", None),
            ("NOTE:79990000000", None),
        ] {
            assert_eq!(shared("7", line).as_deref(), expected, "{line}");
        }
    }
}
