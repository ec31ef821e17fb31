//! The slots of a Redis Cluster: which one a key lies in, and which primary has it.

use std::sync::Arc;

use crc::{CRC_16_XMODEM, Crc};
use redis::{Arg, Cmd, Value};

use super::keys;

/// How many there are.
pub(super) const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key: of its hash tag if it has one that is not empty, else of all of it.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|end| *end > 0).map(|end| &rest[..end])
    });
    CRC.checksum(tag.unwrap_or(key)) % SLOTS
}

/// The hash tag of a partition in a Redis Cluster: the partitions lie at even distances, so that any number of primaries
/// with equal shares of the slots have equal shares of the partitions, give or take one. Their bare numbers do not: of
/// eight partitions four would lie with one of three primaries, and of thirty-two none with four of eight.
pub(super) fn tag(partition: u16, partitions: u16) -> String {
    let (partition, partitions, slots) = (u32::from(partition), u32::from(partitions), u32::from(SLOTS));
    let middle = (2 * partition + 1) * slots / (2 * partitions);
    let near = (slots / partitions / 32).max(1);
    let tags = (0..).map(|number: u32| format!("{partition}.{number}"));
    let mut fitting = tags.filter(|tag| u32::from(slot_of(tag.as_bytes())).abs_diff(middle) <= near);
    fitting.next().expect("some number gives any slot")
}

/// The slot of the key that decides where a command belongs; none for one that every server can be asked.
pub(super) fn slot_of_command(cmd: &Cmd) -> Option<u16> {
    let mut words = cmd.args_iter().map(|arg| match arg {
        Arg::Simple(word) => word,
        _ => b"",
    });
    let key = match words.next()? {
        b"CLUSTER" | b"CONFIG" | b"FUNCTION" | b"INFO" | b"PING" | b"ROLE" | b"SCAN" | b"SCRIPT" | b"TIME" => None,
        b"EVAL" | b"FCALL" => words.nth(2),
        b"XGROUP" | b"XINFO" => words.nth(1),
        b"XREADGROUP" => words.find(|word| *word == b"STREAMS").and_then(|_| words.next()),
        _ => words.next(),
    };
    key.map(slot_of)
}

/// The slot that answers for the whole: what concerns no partition is asked there.
pub(super) fn slot_of_meta() -> u16 {
    slot_of(keys::META.as_bytes())
}

/// Which primary has which slot. Addresses are `host:port`.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotMap {
    primaries: Vec<Arc<str>>,
    /// For each slot one more than the index of its primary; 0 for one that nobody has.
    owners: Vec<u16>,
}

impl SlotMap {
    /// Reads the reply to `CLUSTER SLOTS` of a node at `host`; none if it is another one.
    pub(super) fn read(reply: &Value, host: &str) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let mut map = Self::default();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(from), Value::Int(to), Value::Array(primary), ..] = range.as_slice() else { return None };
            let Some(address) = address(primary, host) else { continue };
            for slot in *from..=*to {
                map.set(u16::try_from(slot).ok()?, &address);
            }
        }
        Some(map)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.primaries.is_empty()
    }

    /// How many slots have a primary.
    pub(super) fn assigned(&self) -> usize {
        self.owners.iter().filter(|owner| **owner > 0).count()
    }

    pub(super) fn owner(&self, slot: u16) -> Option<Arc<str>> {
        let index = *self.owners.get(usize::from(slot))?;
        Some(self.primaries[usize::from(index.checked_sub(1)?)].clone())
    }

    pub(super) fn has(&self, address: &str) -> bool {
        self.primaries.iter().any(|known| **known == *address)
    }

    /// Every primary that has a slot, each once.
    pub(super) fn primaries(&self) -> Vec<Arc<str>> {
        let used = |at: &usize| self.owners.contains(&(*at as u16 + 1));
        (0..self.primaries.len()).filter(used).map(|at| self.primaries[at].clone()).collect()
    }

    pub(super) fn set(&mut self, slot: u16, address: &str) {
        let known = self.primaries.iter().position(|known| **known == *address);
        let index = known.unwrap_or_else(|| {
            self.primaries.push(address.into());
            self.primaries.len() - 1
        });
        self.owners.resize(usize::from(SLOTS), 0);
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = index as u16 + 1;
        }
    }
}

/// The address of `[host, port, …]`. A node that does not know its own name is meant to be reached as it was asked; one
/// that nobody can name has no address.
fn address(node: &[Value], asked: &str) -> Option<String> {
    let host = match node.first()? {
        Value::Nil => asked.to_owned(),
        Value::BulkString(host) if host.is_empty() => asked.to_owned(),
        Value::BulkString(host) if host == b"?" => return None,
        Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
        _ => return None,
    };
    let Some(Value::Int(port)) = node.get(1) else { return None };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lies_in_the_slot_of_its_hash_tag() {
        // The check value of the specification, and what a server says to CLUSTER KEYSLOT.
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"0"), 13_907);
        assert_eq!(slot_of(b"weir:{0}:ingest"), 13_907);
        assert_eq!(slot_of(b"{0}{1}"), 13_907);
        assert_eq!(slot_of(b"{}0"), CRC.checksum(b"{}0") % SLOTS);
        assert_eq!(slot_of(b"{0"), CRC.checksum(b"{0") % SLOTS);
    }

    #[test]
    fn partitions_are_spread_evenly_over_any_number_of_primaries() {
        for partitions in 1..=64 {
            let slots: Vec<u32> = (0..partitions).map(|p| slot_of(tag(p, partitions).as_bytes()).into()).collect();
            for primaries in 1..=u32::from(partitions).min(16) {
                // As every tool deals them: contiguous and equal, give or take a slot.
                let of = |primary: u32| slots.iter().filter(|slot| **slot * primaries / 16_384 == primary).count();
                let shares: Vec<usize> = (0..primaries).map(of).collect();
                let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
                assert!(most - least <= 1, "{partitions} partitions over {primaries} primaries: {shares:?}");
            }
        }
    }

    #[test]
    fn the_tags_of_a_data_set_never_change() {
        assert_eq!([0, 1, 2, 3].map(|partition| tag(partition, 4)), ["0.31", "1.15", "2.1", "3.59"]);
        assert_eq!([0, 31, 63].map(|partition| tag(partition, 64)), ["0.1967", "31.937", "63.218"]);
        assert_ne!(tag(1022, 1024), tag(1023, 1024));
    }

    #[test]
    fn a_command_belongs_where_its_key_is() {
        let slot = |words: &[&str]| {
            let mut cmd = redis::cmd(words[0]);
            cmd.arg(&words[1..]);
            slot_of_command(&cmd)
        };
        for words in [
            &["HGET", "k", "f"][..],
            &["FCALL", "f", "2", "k", "l"],
            &["XREADGROUP", "GROUP", "g", "c", "COUNT", "9", "BLOCK", "1", "STREAMS", "k", ">"],
            &["XINFO", "GROUPS", "k"],
            &["XGROUP", "CREATE", "k", "g", "0"],
            &["EVAL", "return 1", "1", "k"],
        ] {
            assert_eq!(slot(words), Some(slot_of(b"k")), "{words:?}");
        }
        for words in [&["TIME"][..], &["INFO", "everything"], &["FUNCTION", "LOAD", "x"], &["SCAN", "0"]] {
            assert_eq!(slot(words), None, "{words:?}");
        }
    }

    #[test]
    fn a_map_is_read_as_nodes_tell_it_and_corrected_slot_by_slot() {
        let text = |text: &str| Value::BulkString(text.into());
        let range = |from, to, host, port| {
            let node = vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())];
            Value::Array(vec![Value::Int(from), Value::Int(to), Value::Array(node.clone()), Value::Array(node)])
        };
        let reply = Value::Array(vec![
            range(0, 5, text("a"), 1),
            range(7, 7, text(""), 2),
            range(8, 8, Value::Nil, 3),
            range(9, 9, text("?"), 4),
        ]);
        let mut map = SlotMap::read(&reply, "::1").unwrap();
        let owner = |map: &SlotMap, slot| map.owner(slot).map(|address| address.to_string()).unwrap_or_default();
        assert_eq!([0, 5, 6, 7, 8, 9].map(|slot| owner(&map, slot)), ["a:1", "a:1", "", "::1:2", "::1:3", ""]);
        assert_eq!(map.assigned(), 8);
        map.set(7, "b:9");
        map.set(8, "b:9");
        assert_eq!(owner(&map, 7), "b:9");
        assert_eq!(map.primaries().iter().map(|address| &**address).collect::<Vec<_>>(), ["a:1", "b:9"]);
        assert!(SlotMap::read(&Value::Okay, "a").is_none());
        assert!(SlotMap::read(&Value::Array(vec![range(0, 70_000, text("a"), 1)]), "a").is_none());
        assert_eq!(SlotMap::default().owner(3), None);
    }
}
