//! The sample messages: made from a seed and a number, so that a repeat is the same message without being kept.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use weir_core::message::MessageKey;

/// 2025-01-01, in Unix seconds.
const YEAR_2025: u64 = 1_735_689_600;
/// 2000-01-01, in Unix milliseconds: nothing older is accepted.
const EARLIEST_MS: u64 = 946_684_800_000;
/// How far back a repeat may lie.
const REPEAT_WITHIN: u64 = 1000;
/// 1 would spread messages evenly over clients. At 1.3 the busiest one has some 200 of 10,000 messages, which the usual
/// limit of a client lets pass.
const SKEW: f64 = 1.3;

const GREETINGS: [&str; 6] = ["Здравствуйте!", "Добрый день.", "Привет!", "Доброе утро,", "Добрый вечер!", "Алло?"];
const MATTERS: [&str; 8] = [
    "Подскажите, пожалуйста, когда приедет заказ №",
    "Не приходит код подтверждения, обращение ",
    "Хочу перенести запись на другой день, номер ",
    "Спасибо, всё получил, заказ №",
    "Как вернуть товар? Номер заказа ",
    "Можно оплатить картой при получении? Заказ №",
    "Приложение не открывает чат, обращение ",
    "Где посмотреть статус доставки? Трек ",
];

/// All messages of one run.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    pub(super) source: String,
    pub(super) seed: u64,
    pub(super) clients: u64,
    /// Share of repeats, 0 to 100.
    pub(super) duplicates: f64,
}

/// One message.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    pub(super) external_message_id: String,
    pub(super) external_client_id: String,
    pub(super) client_phone: String,
    pub(super) message_text: String,
    pub(super) send_at: u64,
}

impl Traffic {
    /// Message `number`, which may be one that came before.
    pub(super) fn sample(&self, number: u64) -> Sample {
        let number = self.original(number);
        let mut chance = self.chance(number, 1);
        let id: u128 = chance.random();
        let client = (self.clients as f64 * chance.random::<f64>().powf(SKEW)) as u64;
        let mut person = StdRng::seed_from_u64(client);
        let greeting = GREETINGS[chance.random_range(0..GREETINGS.len())];
        let matter = MATTERS[chance.random_range(0..MATTERS.len())];
        Sample {
            external_message_id: format!("{id:032x}"),
            external_client_id: format!("{:032x}", person.random::<u128>()),
            client_phone: format!("+79{:09}", person.random_range(0..1_000_000_000_u32)),
            message_text: format!("{greeting} {matter}{}", chance.random_range(1000..1_000_000)),
            send_at: self.sent_at(),
        }
    }

    /// What the queue and the database know a message by.
    pub(super) fn key(&self, sample: &Sample) -> MessageKey {
        MessageKey::new(&self.source, &sample.external_message_id)
    }

    /// The first message with the content of message `number`.
    fn original(&self, mut number: u64) -> u64 {
        loop {
            let mut chance = self.chance(number, 0);
            if number == 0 || chance.random::<f64>() * 100.0 >= self.duplicates {
                return number;
            }
            number -= chance.random_range(1..=number.min(REPEAT_WITHIN));
        }
    }

    fn chance(&self, number: u64, purpose: u64) -> StdRng {
        let mixed = self.seed ^ number.wrapping_mul(2).wrapping_add(purpose).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        StdRng::seed_from_u64(mixed)
    }

    /// The same for all messages of a seed: a repeat with another time would be a conflict. The seed that is chosen by
    /// default is the present time.
    fn sent_at(&self) -> u64 {
        if (EARLIEST_MS..=crate::output::now_ms()).contains(&self.seed) {
            self.seed / 1000
        } else {
            YEAR_2025 + self.seed % 31_536_000
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn traffic(duplicates: f64) -> Traffic {
        Traffic { source: "messenger".into(), seed: 7, clients: 200, duplicates }
    }

    #[test]
    fn without_repeats_every_message_is_new() {
        let traffic = traffic(0.0);
        let ids: HashSet<_> = (0..10_000).map(|number| traffic.sample(number).external_message_id).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn a_repeat_is_the_same_message() {
        let traffic = traffic(25.0);
        let mut seen = HashMap::new();
        let mut repeats = 0;
        for number in 0..10_000 {
            let sample = traffic.sample(number);
            let body = serde_json::to_string(&sample).unwrap();
            if let Some(first) = seen.insert(sample.external_message_id, body.clone()) {
                repeats += 1;
                assert_eq!(first, body);
            }
        }
        assert!((2_300..2_700).contains(&repeats), "{repeats}");
    }

    #[test]
    fn the_busiest_client_stays_below_its_limit() {
        let traffic = traffic(0.0);
        let mut counts = HashMap::new();
        for number in 0..10_000 {
            *counts.entry(traffic.sample(number).external_client_id).or_insert(0) += 1;
        }
        let busiest = counts.values().max().copied().unwrap();
        assert!((100..200).contains(&busiest), "{busiest}");
        assert!(counts.len() > 190);
    }

    #[test]
    fn a_seed_that_is_a_time_is_when_the_messages_were_sent() {
        let at = |seed| Traffic { seed, ..traffic(0.0) }.sample(0).send_at;
        assert_eq!(at(1_760_000_000_123), 1_760_000_000);
        assert_eq!(at(5), YEAR_2025 + 5);
    }
}
