//! What MAX sends, as far as the drill does: events in its own format.
//!
//! Everything that can be compared later follows from names in the books. What a message says is the id of the event that
//! made it say so, and how a user is called follows from how often they were renamed.

use serde_json::{Value, json};

use crate::ledger::{Kind, Ledger, Name};

pub(crate) const PATH: &str = "/webhook/max";

/// The source behind that path.
pub(crate) const SOURCE: &str = "max";

/// A person. All events that tell of one come from one sender, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct User {
    pub(crate) sender: u16,
    pub(crate) number: u32,
}

impl User {
    pub(crate) fn id(self) -> u64 {
        (u64::from(self.sender) + 1) * 10_000_000_000 + u64::from(self.number)
    }
}

/// First and last name of a user who was renamed so often. No name ever comes back: one that did may be overtaken by an
/// older event that is committed at the same moment, until the person's next message (see the decisions in ARCHITECTURE.md).
pub(crate) fn names(renamed: u32) -> (String, Option<String>) {
    (format!("Анна {renamed}"), (!renamed.is_multiple_of(3)).then(|| format!("Ким {renamed}")))
}

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A new message.
    Created,
    /// A new message that PostgreSQL refuses.
    Poison,
    /// A message says something else now.
    Edited { of: Name, sent_ms: i64 },
    /// A message is gone.
    Removed { of: Name },
    /// A button was pressed.
    Pressed,
    /// Somebody started the bot.
    Started,
}

/// One event of one sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) name: Name,
    pub(crate) what: What,
    /// Unix milliseconds; of a later event of the same sender always more.
    pub(crate) at_ms: i64,
    pub(crate) user: User,
    /// How often the user was renamed before it.
    pub(crate) renamed: u32,
}

impl What {
    pub(crate) fn kind(self) -> Kind {
        match self {
            What::Created => Kind::Good,
            What::Poison => Kind::Poison,
            What::Edited { .. } | What::Removed { .. } | What::Pressed | What::Started => Kind::Silent,
        }
    }

    /// Whether such an event says how its user is called, and can be stored.
    pub(crate) fn tells_names(self) -> bool {
        !matches!(self, What::Poison | What::Removed { .. })
    }

    fn name(self) -> &'static str {
        match self {
            What::Created | What::Poison => "message_created",
            What::Edited { .. } => "message_edited",
            What::Removed { .. } => "message_removed",
            What::Pressed => "message_callback",
            What::Started => "bot_started",
        }
    }
}

impl Event {
    /// The id by which queue and store know it.
    pub(crate) fn id(&self, ledger: &Ledger) -> String {
        let (own, at, user) = (ledger.id(self.name), self.at_ms, self.user.id());
        match self.what {
            What::Created | What::Poison => format!("mc:{own}"),
            What::Edited { of, .. } => format!("me:{}:{at}", ledger.id(of)),
            What::Removed { of } => format!("mr:{}", ledger.id(of)),
            What::Pressed => format!("cb:{own}:{at}:{user}"),
            What::Started => format!("bot_started:{user}:{user}:{at}"),
        }
    }

    /// The webhook, as MAX writes it: its type comes last.
    pub(crate) fn body(&self, ledger: &Ledger) -> String {
        let own = || ledger.id(self.name);
        let user = self.user.id();
        let mut body = match self.what {
            What::Created => self.message(&own(), &own(), self.at_ms),
            What::Poison => self.message(&own(), weir_store::POISON_TEXT, self.at_ms),
            What::Edited { of, sent_ms } => self.message(&ledger.id(of), &own(), sent_ms),
            What::Removed { of } => json!({ "message_id": ledger.id(of), "chat_id": user, "user_id": user }),
            What::Pressed => json!({
                "callback": { "timestamp": self.at_ms, "callback_id": own(), "user": self.person(), "payload": "x" },
                "message": null,
            }),
            What::Started => json!({ "chat_id": user, "user": self.person(), "user_id": user }),
        };
        body["timestamp"] = self.at_ms.into();
        body["update_type"] = self.what.name().into();
        body.to_string()
    }

    fn message(&self, mid: &str, text: &str, sent_ms: i64) -> Value {
        let chat = self.user.id();
        json!({ "message": {
            "sender": self.person(),
            "recipient": { "chat_id": chat, "chat_type": "dialog", "user_id": 1 },
            "timestamp": sent_ms,
            "body": { "mid": mid, "seq": 116_328_147_937_082_782_i64, "text": text },
        }})
    }

    fn person(&self) -> Value {
        let (first, last) = names(self.renamed);
        let name = [Some(first.as_str()), last.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        json!({
            "user_id": self.user.id(), "first_name": first, "last_name": last, "is_bot": false,
            "last_activity_time": self.at_ms, "name": name,
        })
    }
}
