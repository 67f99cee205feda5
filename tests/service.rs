//! The daemon as a service manager runs it: what systemd is told, and the files that it and others are given.

use crate::harness::{Daemon, PATIENCE, Pair};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;

/// The service manager's end of NOTIFY_SOCKET.
struct Manager(UnixDatagram);

impl Manager {
    fn new(socket: UnixDatagram) -> Manager {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("the daemon tells the service manager something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_service_manager_knows_when_the_daemon_is_ready_reloads_fails_and_stops() {
    let pair = Pair::new();
    let directory = pair.dir().join("conf.d");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("a.conf");
    fs::copy(pair.config_file(""), &file).unwrap();
    let path = pair.dir().join("notify");
    let manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let words = [directory.to_str().unwrap()];
    let log = pair.dir().join("service.log");
    let mut daemon = Daemon::spawn(&log, &words, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let name = &pair.name;
    assert_eq!(manager.next(), format!("READY=1\nSTATUS=0 replicating, 1 starting ({name})"));
    assert_eq!(manager.next(), "STATUS=1 replicating");

    fs::write(directory.join("b.conf"), "[MAIN]\nNAME=b\n").unwrap();
    daemon.signal("HUP");
    let reloading = manager.next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
    assert!(time.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.next(), "READY=1\nSTATUS=1 replicating, config files with errors: 1");

    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn a_daemon_that_reaches_no_server_is_ready_and_says_which_pair_fails() {
    let directory = std::env::temp_dir().join(format!("pyreplica-service-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let dsn = |name| format!("host={} port=9 user=me dbname={name}", directory.display());
    let config = format!("[MAIN]\nNAME=nowhere\nDSN0={}\nDSN1={}\n", dsn("a"), dsn("b"));
    fs::write(directory.join("a.conf"), config).unwrap();
    let name = format!("pyreplica-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::new(UnixDatagram::bind_addr(&address).unwrap());
    let log = directory.join("log");
    let mut daemon =
        Daemon::spawn(&log, &[directory.to_str().unwrap()], &[("NOTIFY_SOCKET", format!("@{name}").as_str())]);
    assert_eq!(manager.next(), "READY=1\nSTATUS=0 replicating, 1 starting (nowhere)");
    assert_eq!(manager.next(), "STATUS=0 replicating, 1 failing (nowhere)");
    assert!(daemon.terminate().success(), "{}", daemon.log());
    fs::remove_dir_all(&directory).unwrap();
}

/// What systemd would refuse, or ignore with a warning, it names.
#[test]
fn systemd_accepts_the_unit() {
    let directory = std::env::temp_dir().join(format!("pyreplica-unit-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let text = fs::read_to_string(root().join("pyreplica.service")).unwrap();
    assert!(text.contains("\nExecStart=pyreplica "), "{text}");
    // It need not be installed here.
    let unit = directory.join("pyreplica.service");
    let program = format!("\nExecStart={} ", env!("CARGO_BIN_EXE_pyreplica"));
    let text = text.replace("\nExecStart=pyreplica ", &program);
    fs::write(&unit, text.lines().filter(|line| !line.starts_with("Documentation=")).collect::<Vec<_>>().join("\n"))
        .unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("pyreplica.service"), "{said}");
        }
        Err(why) => eprintln!("not checked by systemd: {why}"),
    }
    fs::remove_dir_all(&directory).unwrap();
}
