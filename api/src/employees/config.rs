use sha2::{Digest as _, Sha256};
use weir_core::config::{Reader, Setting};

/// Whether, and for whom, employees get their names from profiles.
#[derive(Debug, Clone)]
pub struct EmployeesConfig {
    /// Whether anybody does. Default true. `employees.profiles`, `EMPLOYEE_SERVICE_PROFILE_ENABLED`.
    pub profiles: bool,
    /// For how many of a hundred user ids. Whoever is among them stays when it grows. Default 100. `employees.rollout`,
    /// `PROFILE_INTEGRATION_ROLLOUT_PERCENTAGE`.
    pub rollout: Percentage,
}

/// A number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentage(pub u8);

impl Setting for Percentage {
    fn read(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let number = number.parse().ok().filter(|number| *number <= 100);
        number.map(Self).ok_or_else(|| "is no percentage from 0 to 100".into())
    }
}

impl Default for EmployeesConfig {
    fn default() -> Self {
        Self { profiles: true, rollout: Percentage(100) }
    }
}

impl EmployeesConfig {
    /// Reads the settings `employees.*`.
    pub(crate) fn read(reader: &mut Reader) -> Self {
        let default = Self::default();
        Self {
            profiles: reader.get("employees.profiles", &["EMPLOYEE_SERVICE_PROFILE_ENABLED"], default.profiles),
            rollout: reader.get("employees.rollout", &["PROFILE_INTEGRATION_ROLLOUT_PERCENTAGE"], default.rollout),
        }
    }

    /// Whether the profile of this user is used: always the same answer for the same id, in every process.
    pub(crate) fn includes(&self, user_id: &str) -> bool {
        let digest = Sha256::digest(user_id);
        let place = u16::from_be_bytes([digest[0], digest[1]]);
        self.profiles && u32::from(place) * 100 < u32::from(self.rollout.0) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rollout: u8) -> EmployeesConfig {
        EmployeesConfig { profiles: true, rollout: Percentage(rollout) }
    }

    #[test]
    fn a_rollout_takes_in_its_share_and_keeps_whom_it_has() {
        let ids: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let among = |rollout| ids.iter().filter(|id| at(rollout).includes(id)).count();
        assert_eq!((among(0), among(100)), (0, 10_000));
        let quarter = among(25);
        assert!((2_300..2_700).contains(&quarter), "{quarter}");
        assert!(ids.iter().all(|id| !at(25).includes(id) || at(50).includes(id)));
    }

    #[test]
    fn what_is_switched_off_takes_in_nobody() {
        assert!(!EmployeesConfig { profiles: false, ..at(100) }.includes("12345"));
    }

    #[test]
    fn a_percentage_is_written_with_its_sign_or_without() {
        assert_eq!((Percentage::read("25"), Percentage::read("25%")), (Ok(Percentage(25)), Ok(Percentage(25))));
        for text in ["101", "-1", "", "%", "many", "2.5"] {
            assert!(Percentage::read(text).is_err(), "{text}");
        }
    }
}
