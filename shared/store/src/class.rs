//! Whose fault a failure is. The caller decides what to do about it; here is only the table.

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// PostgreSQL is away, full, busy or gave way to another transaction. Wait and repeat; nobody's attempt is used up.
    Dependency,
    /// The schema, the rights or the configuration are not what this version needs, and no message can change that.
    /// Pause, and call somebody.
    Deployment,
    /// A bug in how a batch was put together. Bisect, log, go on one by one.
    Batch,
    /// A message's data. Bisect; the message that is left is at fault.
    Message,
    /// PostgreSQL's files are damaged. Stop, and call somebody.
    Damage,
}

impl Class {
    /// The lower-case word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dependency => "dependency",
            Self::Deployment => "deployment",
            Self::Batch => "batch",
            Self::Message => "message",
            Self::Damage => "damage",
        }
    }

    /// Judges an error of the server. `message` is its primary message: a missing partition has the same code as a
    /// check that a row's data fails.
    pub(crate) fn of_sqlstate(sqlstate: &str, message: &str) -> Self {
        match sqlstate {
            // Shut down, crashed, starting up; our own timeouts; a standby; lost locks and transactions.
            "57P01" | "57P02" | "57P03" | "57P05" | "57014" | "25P03" | "25006" | "55P03" | "40001" | "40P01"
            | "40003" => Self::Dependency,
            "XX001" | "XX002" | "58030" => Self::Damage,
            "21000" | "34000" | "26000" => Self::Batch,
            "23514" if message.starts_with("no partition of relation") => Self::Deployment,
            "23502" | "23503" | "23514" => Self::Message,
            "3D000" | "0A000" => Self::Deployment,
            other => Self::of_sqlstate_class(other.get(..2).unwrap_or_default()),
        }
    }

    /// Judges by the first two characters. What is in no row of the table is a deployment's fault: to wait would hide
    /// it for ever, and to blame the messages could turn a whole backlog into dead letters.
    fn of_sqlstate_class(class: &str) -> Self {
        match class {
            "08" | "53" => Self::Dependency,
            "22" | "54" => Self::Message,
            _ => Self::Deployment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Class::{self, *};

    #[test]
    fn every_row_of_the_table_is_kept() {
        let table: &[(&[&str], Class)] = &[
            (&["08000", "08003", "08006", "08P01", "53000", "53100", "53200", "53300", "53400"], Dependency),
            (&["57P01", "57P02", "57P03", "57P05", "57014", "25006", "25P03"], Dependency),
            (&["55P03", "40001", "40P01", "40003"], Dependency),
            (&["42P01", "42703", "42501", "42883", "28000", "28P01", "3D000", "0A000", "57P04"], Deployment),
            (&["23505", "XX000", "P0001", "25P02", "", "2"], Deployment),
            (&["21000", "34000", "26000"], Batch),
            (&["22P05", "22021", "22003", "22P02", "22008", "23502", "23503", "23514", "54000", "54001"], Message),
            (&["XX001", "XX002", "58030"], Damage),
        ];
        for (codes, class) in table {
            for code in *codes {
                assert_eq!(Class::of_sqlstate(code, "anything"), *class, "{code}");
            }
        }
    }

    #[test]
    fn a_missing_partition_is_not_the_messages_fault() {
        let message = r#"no partition of relation "messages" found for row"#;
        assert_eq!(Class::of_sqlstate("23514", message), Deployment);
    }
}
