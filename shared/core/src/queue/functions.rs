use sha2::{Digest as _, Sha256};

use crate::planted::{self, Planted};

/// The functions, in the order in which they are put together.
const PARTS: [&str; 19] = [
    include_str!("functions/prelude.lua"),
    include_str!("functions/ensure.lua"),
    include_str!("functions/enqueue.lua"),
    include_str!("functions/sweep.lua"),
    include_str!("functions/beat.lua"),
    include_str!("functions/settle.lua"),
    include_str!("functions/move.lua"),
    include_str!("functions/due.lua"),
    include_str!("functions/reap.lua"),
    include_str!("functions/suspects.lua"),
    include_str!("functions/condemn.lua"),
    include_str!("functions/leave.lua"),
    include_str!("functions/replay.lua"),
    include_str!("functions/purge.lua"),
    include_str!("functions/amend.lua"),
    include_str!("functions/import.lua"),
    include_str!("functions/tally.lua"),
    include_str!("functions/put_profiles.lua"),
    include_str!("functions/drop_profiles.lua"),
];

/// Reads only.
const BALANCE: &str = include_str!("functions/balance.lua");

/// The library of Redis functions, named by its content: builds with other functions live beside each other.
pub(super) struct Library {
    pub(super) name: String,
    pub(super) source: String,
}

impl Library {
    pub(super) fn new() -> Self {
        let mut body = PARTS.iter().chain([&BALANCE]).copied().collect::<Vec<_>>().join("\n");
        if planted::is(Planted::UnfencedMove) {
            body = unfenced(&body);
        }
        let name = format!("weir_{}", hex::encode(&Sha256::digest(body.as_bytes())[..4]));
        let source = format!("#!lua name={name}\nlocal LIBRARY = '{name}'\n{body}");
        Self { name, source }
    }

    /// The full name of a function.
    pub(super) fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }
}

/// The functions without their checks of lease and ownership.
fn unfenced(body: &str) -> String {
    let swaps = [
        ("return not deadline or tonumber(deadline) < 0", "return false"),
        (
            "if redis.call('XACK', keys[1], GROUP, id) == 1 then",
            "redis.call('XACK', keys[1], GROUP, id)\n    if true then",
        ),
        ("if not join and (not held or tonumber(held) < 0) then return 'FENCED' end", ""),
    ];
    swaps.iter().fold(body.to_owned(), |body, (checked, unchecked)| {
        assert!(body.contains(checked), "the check that is to be left out is not there: {checked}");
        body.replacen(checked, unchecked, 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_that_a_planted_fault_leaves_out_are_there() {
        let body = PARTS.join("\n");
        assert_ne!(unfenced(&body), body);
    }
}
