//! Whether a Redis server has faults that are known to the world.
//!
//! The ones that matter here are those of its Lua: whoever may load code may then run any on the machine, beginning with
//! CVE-2025-49844. The number of a version does not tell what a distribution has mended in it, so its package is asked
//! where the server runs on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use weir_core::queue::server::ServerState;

use super::finding::Findings;

const PART: &str = "redis";
const CHECK: &str = "known faults";

/// Releases of Redis in which CVE-2025-49844 is mended, one for each line; later lines never had it.
const REDIS: [(u32, u32, u32); 4] = [(7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)];
const VALKEY: [(u32, u32, u32); 3] = [(7, 2, 11), (8, 0, 6), (8, 1, 4)];

/// Debian mends 7.0.15 to this day; in this revision of Debian 12 all that was known by its date is mended.
const DEBIAN: &str = "5:7.0.15-1~deb12u";
const REVISION: u32 = 10;

pub(super) fn examine(state: &ServerState, findings: &mut Findings) {
    let package = package(state);
    match judge(state.info("redis_version"), state.info("valkey_version"), package.as_deref()) {
        Ok(found) => findings.ok(PART, CHECK, found),
        Err((found, fix)) => findings.warn(PART, CHECK, found, fix),
    }
}

/// What is good, or what is wrong and the way out.
fn judge(redis: &str, valkey: &str, package: Option<&str>) -> Result<String, (String, String)> {
    let (name, version, lines) =
        if valkey.is_empty() { ("Redis", redis, &REDIS[..]) } else { ("Valkey", valkey, &VALKEY[..]) };
    if is_mended(version, lines) {
        return Ok(format!("none that {name} {version} is known to have"));
    }
    if let Some(revision) = package.and_then(|package| package.strip_prefix(DEBIAN)) {
        let digits = revision.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        return match digits.parse::<u32>() {
            Ok(number) if number >= REVISION => Ok(format!("none that Debian's {DEBIAN}{revision} is known to have")),
            _ => Err((
                format!("{DEBIAN}{revision} has faults that a script can use to run code on this machine"),
                format!("apt-get upgrade to {DEBIAN}{REVISION} or newer, and restart it"),
            )),
        };
    }
    let newest = lines.iter().map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"));
    let newest = newest.collect::<Vec<_>>().join(", ");
    Err((
        format!("{name} {version} itself has faults in Lua (CVE-2025-49844); its distribution may have mended them"),
        format!(
            "see the changelog of its package (Debian 12: {DEBIAN}{REVISION}), or upgrade to one of {newest} or newer"
        ),
    ))
}

fn is_mended(version: &str, lines: &[(u32, u32, u32)]) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    let (major, minor, patch) = (next(), next(), next());
    let newer_line = lines.iter().all(|line| (major, minor) > (line.0, line.1));
    newer_line || lines.iter().any(|line| (major, minor) == (line.0, line.1) && patch >= line.2)
}

/// Revision of the package that the server is of, where it runs on this machine and dpkg knows.
fn package(state: &ServerState) -> Option<String> {
    let process = Path::new("/proc").join(state.info("process_id"));
    let name = fs::read_to_string(process.join("comm")).ok()?;
    if name.trim_end() != "redis-server" {
        return None;
    }
    // The program is in this package; redis-server has the service.
    let asked = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "redis-tools"]).output().ok()?;
    let version = String::from_utf8(asked.stdout).ok()?;
    (asked.status.success() && version.contains(state.info("redis_version"))).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_release_is_judged_by_its_line_and_a_package_by_its_revision() {
        let good = |redis, valkey, package| judge(redis, valkey, package).is_ok();
        for (redis, good_one) in [
            ("7.0.15", false),
            ("7.2.10", false),
            ("7.2.11", true),
            ("7.4.5", false),
            ("7.4.6", true),
            ("8.0.3", false),
            ("8.2.2", true),
            ("8.4.0", true),
            ("10.0.0", true),
            ("", false),
        ] {
            assert_eq!(good(redis, "", None), good_one, "{redis}");
        }
        for (valkey, good_one) in [("7.2.10", false), ("8.0.6", true), ("8.1.3", false), ("9.0.0", true)] {
            assert_eq!(good("7.2.4", valkey, None), good_one, "{valkey}");
        }
        for (package, good_one) in [
            ("5:7.0.15-1~deb12u5", false),
            ("5:7.0.15-1~deb12u9", false),
            ("5:7.0.15-1~deb12u10", true),
            ("5:7.0.15-1~deb12u11+local", true),
            ("5:7.0.15-1~deb12u", false),
            ("5:7.0.15-1ubuntu0.24.04.1", false),
        ] {
            assert_eq!(good("7.0.15", "", Some(package)), good_one, "{package}");
        }
    }

    #[test]
    fn a_warning_names_what_to_upgrade_to() {
        let (found, fix) = judge("7.0.15", "", None).unwrap_err();
        assert!(found.contains("7.0.15") && found.contains("CVE-2025-49844"), "{found}");
        assert!(fix.contains("5:7.0.15-1~deb12u10") && fix.contains("7.2.11"), "{fix}");
    }
}
