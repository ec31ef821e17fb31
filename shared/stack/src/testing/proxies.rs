//! Real proxies with the files of `deploy/`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Authority, Scratch, eventually, scratch};
use crate::{Process, free_port, tied_command};

/// Far longer than a proxy takes to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a proxy stands in front of.
pub struct Behind {
    /// Takes webhooks.
    pub gateway: SocketAddr,
    /// Everything else over HTTP.
    pub api: SocketAddr,
    /// Profiles over gRPC.
    pub grpc: SocketAddr,
}

impl Default for Behind {
    /// Nobody.
    fn default() -> Self {
        // Port 1 belongs to nobody.
        let nobody = ([127, 0, 0, 1], 1).into();
        Self { gateway: nobody, api: nobody, grpc: nobody }
    }
}

/// A proxy that runs until the test ends.
pub struct TestProxy {
    /// Where it speaks HTTP.
    pub http: SocketAddr,
    /// Where it speaks gRPC over TLS, as 127.0.0.1.
    pub grpc: SocketAddr,
    /// Whom its clients have to trust, in PEM.
    pub authority: PathBuf,
    _process: Process,
    _folder: Scratch,
}

/// A program of a Debian package, which may install it to where PATH does not lead.
///
/// # Panics
/// If it is not installed.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder: PathBuf| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("{name} was not found: it is in the Debian package {package}, which `make test` installs")
        })
}

/// What a proxy of a test has for itself.
struct Own {
    folder: Scratch,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Own {
    fn new() -> Self {
        let folder = scratch();
        let authority = Authority::new("Proxies of a test");
        let issued = authority.issue(&["127.0.0.1"]);
        let files = [
            ("authority.pem", authority.certificate().to_owned()),
            ("both.pem", format!("{}{}", issued.certificate, issued.key)),
            ("certificate.pem", issued.certificate),
            ("key.pem", issued.key),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let port = || ([127, 0, 0, 1], free_port().expect("a port")).into();
        Self { folder, http: port(), grpc: port() }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A file of `deploy/` with what is a test's own, and with a second for everything that has ten or more.
    fn example(&self, name: &str, behind: &Behind, own: &[(&str, String)]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
        let mut text = fs::read_to_string(path).expect("a file of deploy/");
        let addresses = [
            ("127.0.0.1:8095", behind.gateway.to_string()),
            ("127.0.0.1:8097", behind.api.to_string()),
            ("127.0.0.1:9095", behind.grpc.to_string()),
        ];
        let times = [(" 10s", " 1s".to_owned()), (" 75s", " 1s".to_owned())];
        for (from, to) in own.iter().chain(&addresses).chain(&times) {
            assert!(text.contains(from), "{from} is not in {name}");
            text = text.replace(from, to);
        }
        text
    }

    async fn start(self, mut command: Command) -> TestProxy {
        let Self { folder, http, grpc } = self;
        let log = folder.path().join("log");
        command.stderr(fs::File::create(&log).expect("a file"));
        let process = Process::spawn(command).expect("the proxy starts");
        eventually("the proxy listens", PATIENCE, async || {
            assert!(
                process.exited().is_none(),
                "the proxy has ended: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            TcpStream::connect(http).await.is_ok() && TcpStream::connect(grpc).await.is_ok()
        })
        .await;
        let authority = folder.path().join("authority.pem");
        TestProxy { http, grpc, authority, _process: process, _folder: folder }
    }
}

impl TestProxy {
    /// nginx.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn nginx(behind: &Behind) -> Self {
        let own = Own::new();
        let site = own.example(
            "nginx.conf.example",
            behind,
            &[
                ("listen 80;", format!("listen {};", own.http)),
                ("listen 9443 ", format!("listen {} ", own.grpc)),
                ("/etc/weir/tls/fullchain.pem", own.file("certificate.pem")),
                ("/etc/weir/tls/privkey.pem", own.file("key.pem")),
            ],
        );
        let dir = own.folder.path().display();
        let main = format!(
            "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
             fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n{site}}}\n"
        );
        let file = own.file("nginx.conf");
        fs::write(&file, main).expect("a configuration");
        // One process: workers would outlive a master that is killed.
        let mut command = tied_command(&program("nginx", "nginx-light"), "KILL").expect("setpriv");
        command.arg("-p").arg(own.folder.path()).arg("-e").arg(own.file("error.log")).arg("-c").arg(&file);
        own.start(command).await
    }

    /// HAProxy.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn haproxy(behind: &Behind) -> Self {
        let own = Own::new();
        let text = own.example(
            "haproxy.cfg.example",
            behind,
            &[
                ("bind :80", format!("bind {}", own.http)),
                ("bind :9443", format!("bind {}", own.grpc)),
                ("/etc/weir/tls/haproxy.pem", own.file("both.pem")),
            ],
        );
        let file = own.file("haproxy.cfg");
        fs::write(&file, text).expect("a configuration");
        let mut command = tied_command(&program("haproxy", "haproxy"), "KILL").expect("setpriv");
        command.arg("-q").arg("-db").arg("-f").arg(&file);
        own.start(command).await
    }
}
