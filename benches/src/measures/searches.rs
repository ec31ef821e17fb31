//! What is searched for among profiles. A frequent text has a page full of profiles soon, a rare one is found by its trigrams;
//! what lies between the two is the hardest.

use std::fmt::Write as _;

/// One kind of question.
pub(super) struct Search {
    /// In the id of its figures.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Questions of this kind.
    pub(super) paths: Vec<String>,
}

/// Searches by a text: the name, what it is, and texts.
const TEXTS: [(&str, &str, &[&str]); 10] = [
    ("three_common", "3 letters that many have", &["ова", "нов", "ина", "але", "ван"]),
    ("three_between", "3 letters that few have", &["щук", "эрд", "кук", "гук", "жук", "дюк", "пак"]),
    ("three_none", "3 letters that nobody has", &["ыйг", "щъы", "эйъ"]),
    ("five_common", "5 letters that many have", &["ивано", "кузне", "смирн", "алекс", "натал"]),
    ("five_between", "5 letters that few have", &["захар", "аслов", "кукуш", "семак", "ястре"]),
    ("five_rare", "5 letters of rare names", &["щукев", "яхонт", "янгир", "дюков", "юсупш"]),
    ("word", "a word of 2 letters", &["ли", "ян", "эм", "щу"]),
    ("name_common", "first and last name, frequent", &["иван петров", "анна иванова", "сергей смирнов"]),
    ("name_rare", "first and last name, rare", &["глеб щукевич", "алсу яхонтова", "анастасия шамильченко"]),
    ("id", "a user id", &["100000000", "100012345", "100123456"]),
];

/// All kinds. `middle` is a moment with half of the profiles behind it, `cursor` a place there.
pub(super) fn searches(middle: &str, cursor: &str) -> Vec<Search> {
    let by_text = TEXTS.into_iter().map(|(name, about, texts)| Search { name, about, paths: asking(texts, "") });
    let after = format!("updated_after={middle}");
    let behind = format!("cursor={cursor}");
    let common = ["ова", "ивано", "алекс"];
    let few = ["щук", "захар", "кукуш"];
    let others = [
        ("updated_after", "updated_after in the middle", vec![format!("/profiles?{after}")]),
        ("updated_after_common", "the same and a text that many have", asking(&common, &after)),
        ("updated_after_between", "the same and a text that few have", asking(&few, &after)),
        ("cursor", "a page in the middle, by cursor", vec![format!("/profiles?{behind}")]),
        ("cursor_common", "the same of a text that many have", asking(&common, &behind)),
    ];
    by_text.chain(others.into_iter().map(|(name, about, paths)| Search { name, about, paths })).collect()
}

fn asking(texts: &[&str], more: &str) -> Vec<String> {
    texts
        .iter()
        .map(|text| format!("/profiles?query={}&{more}", escaped(text)).trim_end_matches('&').to_owned())
        .collect()
}

/// As it stands in a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        // Writing to a text cannot fail.
        let _ = write!(escaped, "%{byte:02X}");
    }
    escaped
}
