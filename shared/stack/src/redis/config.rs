//! The configuration file of a private redis-server.

use std::fmt::Write;
use std::path::PathBuf;

use crate::{Result, private};

/// The part that every deployment shares.
const BASE: &str = include_str!("../../../../deploy/redis.conf");

/// What belongs to one server. It holds a password and therefore has no `Debug`.
pub(super) struct Config {
    pub(super) dir: PathBuf,
    pub(super) port: u16,
    pub(super) password: String,
    pub(super) maxmemory: Option<u64>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) env: Vec<(String, String)>,
}

impl Config {
    /// Writes the file; only its owner may read it, since the password is in it and never among the arguments.
    pub(super) fn write(&self) -> Result<PathBuf> {
        let path = self.dir.join("redis.conf");
        private::write(&path, &self.text())?;
        Ok(path)
    }

    /// Redis keeps its pid there while it runs.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.dir.join("redis.pid")
    }

    fn text(&self) -> String {
        let mut lines = vec![
            line("bind", "127.0.0.1"),
            line("port", &self.port.to_string()),
            line("dir", &quote(&self.dir.to_string_lossy())),
            line("pidfile", &quote(&self.pid_file().to_string_lossy())),
            line("requirepass", &quote(&self.password)),
        ];
        lines.extend(self.maxmemory.map(|bytes| line("maxmemory", &bytes.to_string())));
        lines.extend(self.settings.iter().map(|(name, value)| match value.as_str() {
            "" => line(name, r#""""#),
            arguments => line(name, arguments),
        }));
        format!("{BASE}\n# --- This server. The file is written anew at every start.\n\n{}", lines.concat())
    }
}

fn line(name: &str, arguments: &str) -> String {
    format!("{name} {arguments}\n")
}

/// One argument, whatever is in it.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => {
                let _ = write!(quoted, "\\x{other:02x}");
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_password_stays_one_argument() {
        assert_eq!(quote(r#"a "b\ ю"#), r#""a \"b\\ \xd1\x8e""#);
        assert_eq!(quote("two\nlines"), r#""two\x0alines""#);
    }

    #[test]
    fn settings_come_after_the_shared_part() {
        let config = Config {
            dir: "/data".into(),
            port: 7000,
            password: "pw".into(),
            maxmemory: Some(5),
            settings: vec![("appendfsync".into(), "no".into()), ("save".into(), String::new())],
            env: Vec::new(),
        };
        let text = config.text();
        let own = text.strip_prefix(BASE).expect("the shared part comes first");
        assert!(own.ends_with("maxmemory 5\nappendfsync no\nsave \"\"\n"), "{own}");
    }
}
