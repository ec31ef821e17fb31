//! What the counts of [`tally`](crate::tally) say: who is known by name, what became of events, how the cache does.
//!
//! Nothing here looks at the rows that were counted, so that it takes milliseconds however many there are.
//! [`compact`](self::compact) keeps the counts few.

mod cache;
mod compact;
mod period;
mod profiles;
mod webhooks;

pub use cache::CacheCounts;
pub(crate) use cache::cache_counts;
pub use period::{Period, Resolution};
pub use profiles::{ProfileCounts, ProfileDay};
pub(crate) use profiles::{fresh_since, profile_counts};
pub use webhooks::WebhookCounts;
pub(crate) use webhooks::{last_event_at, webhook_counts};
